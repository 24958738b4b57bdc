//! What a whole frame says, field by field.

use std::time::Duration;

use bytes::{Buf, Bytes};
use bytestring::ByteString;
use rhumb_core::limits::MAX_KEY_BYTES;
use rhumb_core::{DataClass, Epoch, Guarantee, HybridTime};

use super::{
    FIXED, Field, Frame, FrameError, FrameKind, MAX_CALLERS, MAX_HEAD, MAX_NAME_BYTES, MAX_TARGET_BYTES,
    TRACED,
};
use crate::message::TraceContext;

/// Reads a frame whose lengths and checksum hold.
pub(super) struct Reader<'a> {
    frame: &'a Bytes,
    fixed: &'a [u8],
    fields: &'a [u8],
    kind: Option<FrameKind>,
    id: u64,
    name: ByteString,
}

impl<'a> Reader<'a> {
    pub(super) fn new(frame: &'a Bytes, head: usize) -> Self {
        let id = (&frame[12..20]).get_u64();
        let kind = FrameKind::of(frame[3]);
        let (fixed, fields) = (&frame[..FIXED], &frame[FIXED..head]);
        Self { frame, fixed, fields, kind, id, name: ByteString::new() }
    }

    pub(super) fn read(mut self, body: Bytes) -> Result<Frame, FrameError> {
        let Some(kind) = self.kind else {
            return Err(self.nonsense(format!("kind {} is not known", self.fixed[3])));
        };
        let (mut class, mut key, mut epoch, mut chain, mut target) = (None, None, None, Vec::new(), None);
        while let Some((field, value)) = self.field()? {
            match field {
                f if f == Field::Name as u8 => self.name = self.slice("name", value, MAX_NAME_BYTES)?,
                f if f == Field::Class as u8 => class = Some(self.class(value)?),
                f if f == Field::Key as u8 => key = Some(self.text("key", value, MAX_KEY_BYTES)?.to_owned()),
                f if f == Field::Epoch as u8 => epoch = Some(self.epoch(value)?),
                f if f == Field::Caller as u8 && chain.len() == MAX_CALLERS => {
                    return Err(self.nonsense(format!("it has more than {MAX_CALLERS} callers")));
                }
                f if f == Field::Caller as u8 => chain.push(self.text("caller", value, MAX_HEAD)?.to_owned()),
                f if f == Field::Target as u8 => {
                    target = Some(self.slice("target", value, MAX_TARGET_BYTES)?)
                }
                _ => {}
            }
        }
        let class = class.ok_or_else(|| self.nonsense("it names no data class".to_owned()))?;
        if (kind.wants_answer() || kind == FrameKind::Tell) && self.name.is_empty() {
            return Err(self.nonsense("it has no name".to_owned()));
        }
        let mut at = &self.fixed[28..];
        let deadline = Duration::from_millis(u64::from(at.get_u32()));
        let hybrid = HybridTime::from_bits(at.get_u64());
        let (guarantee, required) = (self.guarantee(at.get_u8())?, self.guarantee(at.get_u8())?);
        let flags = at.get_u8();
        at.advance(1);
        let (trace_id, span_id) = (at.get_u128(), at.get_u64());
        let trace = (self.fixed[5] & TRACED != 0).then_some(TraceContext { trace_id, span_id, flags });
        let (codec, id, name) = (self.fixed[4], self.id, self.name);
        #[rustfmt::skip]
        let frame = Frame {
            kind, codec, id, deadline, hybrid, guarantee, required, trace, name, class, key, epoch, chain, target,
            body,
        };
        Ok(frame)
    }

    /// The next field, or `None` at the end.
    fn field(&mut self) -> Result<Option<(u8, &'a [u8])>, FrameError> {
        if self.fields.is_empty() {
            return Ok(None);
        }
        if self.fields.len() < 3 {
            return Err(self.nonsense("its fields end in the middle of one".to_owned()));
        }
        let field = self.fields.get_u8();
        let len = usize::from(self.fields.get_u16());
        let Some((value, rest)) = self.fields.split_at_checked(len) else {
            return Err(self.nonsense(format!("field {field} is longer than its header")));
        };
        self.fields = rest;
        Ok(Some((field, value)))
    }

    fn text(&self, what: &str, value: &'a [u8], max: usize) -> Result<&'a str, FrameError> {
        match std::str::from_utf8(value) {
            Ok(text) if text.len() <= max => Ok(text),
            Ok(text) => Err(self.nonsense(format!("{what} of {} bytes is over {max}", text.len()))),
            Err(_) => Err(self.nonsense(format!("{what} is not UTF-8"))),
        }
    }

    /// A text that stays where it is: a part of the frame's bytes.
    fn slice(&self, what: &str, value: &'a [u8], max: usize) -> Result<ByteString, FrameError> {
        self.text(what, value, max)?;
        ByteString::try_from(self.frame.slice_ref(value)).map_err(|e| self.nonsense(e.to_string()))
    }

    fn class(&self, value: &'a [u8]) -> Result<DataClass, FrameError> {
        let text = self.text("class", value, MAX_NAME_BYTES)?;
        DataClass::read(text).map_err(|e| self.nonsense(e.to_string()))
    }

    fn epoch(&self, value: &[u8]) -> Result<Epoch, FrameError> {
        let bytes = value.try_into().map_err(|_| self.nonsense("epoch is not 8 bytes".to_owned()))?;
        Ok(Epoch(u64::from_be_bytes(bytes)))
    }

    fn guarantee(&self, byte: u8) -> Result<Guarantee, FrameError> {
        let known = Guarantee::ALL.into_iter().find(|level| *level as u8 == byte);
        known.ok_or_else(|| self.nonsense(format!("guarantee {byte} is not known")))
    }

    fn nonsense(&self, reason: String) -> FrameError {
        FrameError::Message { kind: self.kind, id: self.id, name: self.name.to_string(), reason }
    }
}
