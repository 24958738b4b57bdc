//! The layouts of the types that messages are made of: the language's, the standard library's, and the
//! vocabulary's own.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use super::{Layout, Wire};
use crate::{
    ClusterId, DataClass, Delivery, Epoch, Guarantee, HybridTime, Incarnation, NodeId, NodeName, PoolName,
    Principal, Region, Role, StoreId,
};

macro_rules! leaf {
    ($($ty:ty = $name:literal),* $(,)?) => {
        $(impl Wire for $ty {
            const LAYOUT: u64 = Layout::of($name).finish();
        })*
    };
}

leaf! {
    () = "unit", bool = "bool", char = "char", String = "text", str = "text",
    u8 = "u8", u16 = "u16", u32 = "u32", u64 = "u64", u128 = "u128", usize = "u64",
    i8 = "i8", i16 = "i16", i32 = "i32", i64 = "i64", i128 = "i128", isize = "i64",
    f32 = "f32", f64 = "f64", Duration = "duration",
    Region = "region name", NodeName = "node name", PoolName = "pool name", DataClass = "data class",
    ClusterId = "cluster id", StoreId = "store id",
    HybridTime = "hybrid time", Epoch = "epoch", Incarnation = "incarnation",
}

/// What the codec writes as the value itself.
macro_rules! same {
    ($($ty:ty),*) => {
        $(impl<T: Wire + ?Sized> Wire for $ty {
            const LAYOUT: u64 = T::LAYOUT;
        })*
    };
}

same!(Box<T>, Arc<T>);

impl<T: ?Sized> Wire for PhantomData<T> {
    const LAYOUT: u64 = <()>::LAYOUT;
}

impl<T: Wire> Wire for Option<T> {
    const LAYOUT: u64 = Layout::of("option").field("", T::LAYOUT).finish();
}

impl<T: Wire, E: Wire> Wire for Result<T, E> {
    const LAYOUT: u64 = Layout::of("result").field("Ok", T::LAYOUT).field("Err", E::LAYOUT).finish();
}

/// The layout of what a length stands before.
const fn counted<T: Wire>(kind: &str) -> u64 {
    assert!(
        size_of::<T>() > 0,
        "elements of size zero may not travel in a list: nine bytes could claim 2^60 of them"
    );
    Layout::of(kind).field("", T::LAYOUT).finish()
}

macro_rules! collection {
    ($($name:literal = $($ty:ty),+;)*) => {
        $($(impl<T: Wire> Wire for $ty {
            const LAYOUT: u64 = counted::<T>($name);
        })+)*
    };
}

collection! {
    "list" = Vec<T>, VecDeque<T>, [T];
    "set" = BTreeSet<T>;
}

/// Laid out as `Vec<u8>` is, and read and written as one piece: for what is larger than a few bytes.
impl Wire for bytes::Bytes {
    const LAYOUT: u64 = <Vec<u8>>::LAYOUT;
}

impl<T: Wire, S> Wire for HashSet<T, S> {
    const LAYOUT: u64 = counted::<T>("set");
}

impl<K: Wire, V: Wire> Wire for BTreeMap<K, V> {
    const LAYOUT: u64 = counted::<(K, V)>("map");
}

impl<K: Wire, V: Wire, S> Wire for HashMap<K, V, S> {
    const LAYOUT: u64 = counted::<(K, V)>("map");
}

impl<T: Wire, const N: usize> Wire for [T; N] {
    const LAYOUT: u64 = Layout::of("array").number(N as u64).field("", T::LAYOUT).finish();
}

macro_rules! tuple {
    ($($part:ident),*) => {
        impl<$($part: Wire),*> Wire for ($($part,)*) {
            const LAYOUT: u64 = Layout::of("tuple")$(.field("", $part::LAYOUT))*.finish();
        }
    };
}

tuple!(A);
tuple!(A, B);
tuple!(A, B, C);
tuple!(A, B, C, D);
tuple!(A, B, C, D, E);
tuple!(A, B, C, D, E, F);

impl Wire for NodeId {
    const LAYOUT: u64 =
        Layout::of("struct").field("region", Region::LAYOUT).field("name", NodeName::LAYOUT).finish();
}

impl Wire for Principal {
    const LAYOUT: u64 = Layout::of("struct")
        .field("role", Role::LAYOUT)
        .field("region", Region::LAYOUT)
        .field("name", String::LAYOUT)
        .finish();
}

/// Enums of names alone. The match makes a variant that is added here too, or nothing compiles.
macro_rules! names {
    ($($ty:ident: $($variant:ident),*;)*) => {
        $(impl Wire for $ty {
            const LAYOUT: u64 = {
                const fn _all(value: $ty) {
                    match value { $($ty::$variant)|* => {} }
                }
                let none = Layout::of("fields").finish();
                Layout::of("enum")$(.field(stringify!($variant), none))*.finish()
            };
        })*
    };
}

names! {
    Guarantee: Eventual, ReadCommitted, Snapshot, Serializable, StrictSerializable;
    Delivery: NotSent, Ran, Unknown;
    Role: Node, Client, Operator;
}
