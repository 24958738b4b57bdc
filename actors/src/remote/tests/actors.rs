//! What the attributes say of messages and actors.

use std::time::Duration;

use actix::{Actor, Context, Handler, MessageResult};
use rhumb_core::DataClass;

use crate::remote::{Accepts, Addressed, Audience, Hosted, KeepsContext, Overflow, Protocol, Remote, Table};
use crate::{protocol, remote, remote_actor};

#[remote(crate = crate, name = "cart.Add", class = "inventory", reply = Result<u32, String>, idempotent,
         deadline = "500ms", key = order, audience = "operators", reply_class = "personal", coalesce = sku)]
struct Add {
    order: u64,
    sku: String,
    #[since(4)]
    note: Option<String>,
}

#[remote(crate = crate, name = "cart.Label", class = by(class), reply_class = looked_up, reply = (), coalesce)]
struct Label {
    class: DataClass,
}

#[remote(crate = crate, name = "cart.Show", class = looked_up, reply = Vec<String>, audience = "nodes", deadline = "2m")]
struct Show;

struct Cart;

#[remote_actor(crate = crate, name = "cart", class = "inventory", accepts(Add, Label), mailbox = 7, overflow = "coalesce")]
impl Actor for Cart {
    type Context = Context<Self>;
}

impl Handler<Add> for Cart {
    type Result = Result<u32, String>;
    fn handle(&mut self, _: Add, _: &mut Context<Self>) -> Self::Result {
        Ok(1)
    }
}

impl Handler<Label> for Cart {
    type Result = MessageResult<Label>;
    fn handle(&mut self, _: Label, _: &mut Context<Self>) -> Self::Result {
        MessageResult(())
    }
}

protocol! {
    crate = crate;
    /// What a window can be asked.
    pub(super) Windows = "window", class "control": Show, Label;
}

struct Window;

#[remote_actor(crate = crate, serves = Windows)]
impl Actor for Window {
    type Context = Context<Self>;
}

impl Handler<Show> for Window {
    type Result = Vec<String>;
    fn handle(&mut self, _: Show, _: &mut Context<Self>) -> Vec<String> {
        Vec::new()
    }
}

impl Handler<Label> for Window {
    type Result = ();
    fn handle(&mut self, _: Label, _: &mut Context<Self>) {}
}

/// Writes down what an actor serves.
#[derive(Default)]
struct Names(Vec<&'static str>);

impl<A: Actor> Table<A> for Names {
    fn message<M>(&mut self)
    where
        M: Remote,
        A: Handler<M>,
        <A as Handler<M>>::Result: KeepsContext,
    {
        self.0.push(M::NAME);
    }
}

fn served<A: Hosted>() -> Vec<&'static str> {
    let mut names = Names::default();
    A::serve(&mut names);
    names.0
}

fn add(order: u64, sku: &str) -> Add {
    Add { order, sku: sku.into(), note: None }
}

#[test]
fn a_message_is_what_its_attribute_says() {
    assert_eq!((Add::NAME, Add::VERSION, Add::IDEMPOTENT), ("cart.Add", 4, true));
    assert_eq!((Add::DEADLINE, Add::AUDIENCE), (Duration::from_millis(500), Audience::Operators));
    let message = add(12, "a");
    assert_eq!(message.class().map(DataClass::as_str), Some("inventory"));
    assert_eq!(message.reply_class().map(DataClass::as_str), Some("personal"));
    assert_eq!(message.idempotency_key().as_deref(), Some("12"));
}

#[test]
fn what_an_attribute_does_not_say_is_the_safe_choice() {
    assert_eq!((Label::VERSION, Label::IDEMPOTENT, Label::DEADLINE), (1, false, Duration::from_secs(5)));
    assert_eq!(Label::AUDIENCE, Audience::Everyone);
    assert_eq!((Show::AUDIENCE, Show::DEADLINE), (Audience::Nodes, Duration::from_secs(120)));
    assert_eq!(Label { class: DataClass::control() }.idempotency_key(), None);
    assert_eq!(Show.coalesce_key(), None);
}

#[test]
fn a_class_is_in_the_message_or_looked_up() {
    const { assert!(Label::DECLARES_REPLY_CLASS && !Show::DECLARES_REPLY_CLASS) };
    let label = Label { class: DataClass::new("personal").expect("valid") };
    assert_eq!(label.class().map(DataClass::as_str), Some("personal"));
    assert_eq!(label.reply_class(), None);
    assert_eq!((Show.class(), Show.reply_class()), (None, None));
}

#[test]
fn messages_coalesce_by_field_and_never_with_another_name() {
    assert_eq!(add(1, "a").coalesce_key(), add(2, "a").coalesce_key());
    assert_ne!(add(1, "a").coalesce_key(), add(1, "b").coalesce_key());
    let label = |class| Label { class: DataClass::new(class).expect("valid") };
    assert_eq!(label("a").coalesce_key(), label("b").coalesce_key());
    assert!(label("a").coalesce_key().is_some());

    #[remote(crate = crate, name = "cart.Other", class = "control", reply = (), coalesce)]
    struct Other;
    assert_ne!(label("a").coalesce_key(), Other.coalesce_key());
}

#[test]
#[should_panic(expected = "two messages of this list have one name on the wire")]
fn two_messages_of_one_name_are_refused() {
    crate::__private::distinct(&["cart.Add", "cart.Show", "cart.Add"]);
}

/// Names of the user's that generated code might trip over.
mod names {
    use serde::{Deserialize, Serialize};

    use crate::{Wire, grows, remote};

    #[grows(crate = crate)]
    #[derive(Debug, Clone, Default, PartialEq)]
    pub(super) struct A {
        pub(super) r#type: String,
    }

    /// Of another crate, as far as layouts go.
    #[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
    pub(super) struct S(pub(super) u64);

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Wire)]
    #[wire(crate = crate)]
    pub(super) struct Page<T> {
        pub(super) items: Vec<T>,
        #[wire(opaque = "s-v1")]
        pub(super) next: S,
    }

    #[remote(crate = crate, name = "cart.Names", class = "control", reply = Page<A>)]
    #[derive(Debug, Clone, PartialEq)]
    pub(super) struct Fields {
        pub(super) f: A,
        #[wire(opaque = "s-v1")]
        pub(super) de: S,
        #[since(2)]
        pub(super) seq: A,
        #[since(2)]
        #[wire(opaque = "s-v1")]
        pub(super) r#loop: S,
    }
}

#[test]
fn names_of_the_user_are_never_mistaken_for_the_macros_own() {
    let a = names::A { r#type: "x".into() };
    let message = names::Fields { f: a.clone(), de: names::S(1), seq: a, r#loop: names::S(2) };
    let bytes = rhumb_core::wire::encode(&message).expect("encodes");
    assert_eq!(rhumb_core::wire::decode(&bytes), Ok(message));
}

#[test]
fn the_layout_of_a_type_with_parameters_is_that_of_its_parameters() {
    use rhumb_core::Wire;
    assert_ne!(names::Page::<u8>::LAYOUT, names::Page::<u16>::LAYOUT);
    assert_eq!(names::Page::<u64>::LAYOUT, names::Page::<usize>::LAYOUT);
}

#[test]
fn an_actor_is_what_its_attribute_says() {
    assert_eq!((Cart::TYPE, Cart::CLASS), ("cart", "inventory"));
    assert_eq!((Cart::MAILBOX, Cart::OVERFLOW), (7, Overflow::Coalesce));
    assert_eq!(served::<Cart>(), ["cart.Add", "cart.Label"]);
}

#[test]
fn an_actor_serves_a_protocol_that_is_declared_apart() {
    fn accepts<A: Accepts<M>, M: Remote>() -> &'static str {
        A::TYPE
    }
    fn serves<P: Protocol<A>, A: Actor>() {}
    assert_eq!((Window::TYPE, Window::CLASS), (Windows::TYPE, Windows::CLASS));
    assert_eq!((Windows::TYPE, Windows::CLASS), ("window", "control"));
    assert_eq!((Window::MAILBOX, Window::OVERFLOW), (1024, Overflow::Refuse));
    assert_eq!(served::<Window>(), ["cart.Show", "cart.Label"]);
    assert_eq!(
        [accepts::<Windows, Show>(), accepts::<Window, Show>(), accepts::<Window, Label>()],
        ["window"; 3]
    );
    serves::<Windows, Window>();
}
