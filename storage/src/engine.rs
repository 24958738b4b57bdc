//! What keeps bytes. Two engines stand behind this face, RocksDB and memory, and pass one suite
//! ([`conformance`](crate::conformance)).

use std::sync::Arc;

use crate::batch::{Batch, Family};
use crate::fault::StorageFault;

/// How hard an engine is pressed, read from its own properties.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pressure {
    /// It keeps up.
    #[default]
    Green,
    /// It falls behind a little: keep the queue short.
    Yellow,
    /// It slows writes down: only what must be durable.
    Orange,
    /// It has stopped taking writes, or is about to: nothing.
    Red,
}

/// One write of an engine, borrowed from the batches it was made of. Later operations on a key win.
#[derive(Debug, Clone, Default)]
pub struct Ops<'a>(Vec<OpRef<'a>>);

/// One put (with a value) or delete (without).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpRef<'a> {
    /// Where.
    pub family: Family,
    /// Under which key.
    pub key: &'a [u8],
    /// What is put; `None` deletes.
    pub value: Option<&'a [u8]>,
}

impl<'a> Ops<'a> {
    /// A write of nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a value.
    pub fn put(&mut self, family: Family, key: &'a [u8], value: &'a [u8]) -> &mut Self {
        self.0.push(OpRef { family, key, value: Some(value) });
        self
    }

    /// Deletes a key.
    pub fn delete(&mut self, family: Family, key: &'a [u8]) -> &mut Self {
        self.0.push(OpRef { family, key, value: None });
        self
    }

    /// The operations in order.
    pub fn iter(&self) -> impl Iterator<Item = OpRef<'a>> + '_ {
        self.0.iter().copied()
    }

    pub(crate) fn add(&mut self, batch: &'a Batch) {
        self.0.extend(batch.ops.iter().map(|op| OpRef {
            family: op.family,
            key: &op.key,
            value: op.value.as_deref(),
        }));
    }
}

/// Keeps bytes by family and key, in the byte order of keys.
///
/// What is written becomes durable in the order in which it was written: whatever a crash leaves is a
/// prefix of the writes that contains everything synced. What an engine shows after it was opened is
/// durable after its first sync.
pub trait Engine: Send + Sync + 'static {
    /// Writes all or nothing. Visible at once, *not* durable yet.
    ///
    /// # Errors
    /// Any fault; the caller then knows nothing of the write's fate and must stop.
    fn write(&self, ops: &Ops<'_>) -> Result<(), StorageFault>;

    /// Makes everything durable whose write returned before this call.
    ///
    /// # Errors
    /// Any fault. It must never be tried again: what was not synced may be gone.
    fn sync(&self) -> Result<(), StorageFault>;

    /// The value of a key.
    ///
    /// # Errors
    /// Any fault of reading.
    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageFault>;

    /// Gives keys with this prefix and their values, in order, until `f` answers `false`. Shows one
    /// moment: writes made meanwhile do not appear. `f` must not write to this engine.
    ///
    /// # Errors
    /// Any fault of reading.
    fn scan(
        &self,
        family: Family,
        prefix: &[u8],
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault>;

    /// As [`Engine::scan`], from this key on (itself included) to the end of the family.
    ///
    /// # Errors
    /// Any fault of reading.
    fn walk(
        &self,
        family: Family,
        from: &[u8],
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault>;

    /// How hard it is pressed.
    fn pressure(&self) -> Pressure;
}

impl Engine for Arc<dyn Engine> {
    fn write(&self, ops: &Ops<'_>) -> Result<(), StorageFault> {
        (**self).write(ops)
    }

    fn sync(&self) -> Result<(), StorageFault> {
        (**self).sync()
    }

    fn get(&self, family: Family, key: &[u8]) -> Result<Option<Vec<u8>>, StorageFault> {
        (**self).get(family, key)
    }

    fn scan(
        &self,
        family: Family,
        prefix: &[u8],
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault> {
        (**self).scan(family, prefix, f)
    }

    fn walk(
        &self,
        family: Family,
        from: &[u8],
        f: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StorageFault> {
        (**self).walk(family, from, f)
    }

    fn pressure(&self) -> Pressure {
        (**self).pressure()
    }
}
