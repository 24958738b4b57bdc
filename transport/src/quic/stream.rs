//! A stream that is never finished by accident. quinn finishes a dropped stream, and the peer would
//! take a message cut in half for a whole one; this one resets.

use std::ops::{Deref, DerefMut};

use quinn::{ReadError, ReadExactError, RecvStream, SendStream};

use super::close::ABANDONED;
use crate::link::End;

/// The first byte of a stream that one side opens: what follows.
pub(crate) const LANE: u8 = 1;
/// One frame that is too large for a lane.
pub(crate) const LARGE: u8 = 2;

/// A large frame leaves in what lanes, whose streams have 0, leave of the way.
const BEHIND_LANES: i32 = -1;

/// A stream that is reset when it is dropped, unless it was finished on purpose.
#[derive(Debug)]
pub(crate) struct Outgoing(Option<SendStream>);

impl Outgoing {
    pub(crate) fn new(stream: SendStream) -> Self {
        Self(Some(stream))
    }

    /// What goes over lanes goes first.
    pub(crate) fn goes_behind_lanes(&self) {
        self.goes_as(BEHIND_LANES);
    }

    /// A lane takes turns with large frames from here on, or goes before them again. It is the lane that changes: quinn looks
    /// at a stream's priority when it has written of it, and of a large frame behind busy lanes it writes nothing.
    pub(crate) fn takes_turns(&self, does: bool) {
        self.goes_as(if does { BEHIND_LANES } else { 0 });
    }

    fn goes_as(&self, priority: i32) {
        // An error says that the stream has ended already, which whoever writes it learns.
        let _ = self.set_priority(priority);
    }

    /// Everything was written: the end is meant.
    pub(crate) fn finish(mut self) {
        if let Some(mut stream) = self.0.take() {
            // An error says that the stream has ended already, which is what is wanted.
            let _ = stream.finish();
        }
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        if let Some(stream) = &mut self.0 {
            // An error says that the stream has ended already.
            let _ = stream.reset(ABANDONED);
        }
    }
}

impl Deref for Outgoing {
    type Target = SendStream;
    fn deref(&self) -> &SendStream {
        self.0.as_ref().expect("taken only by finish, which consumes")
    }
}

impl DerefMut for Outgoing {
    fn deref_mut(&mut self) -> &mut SendStream {
        self.0.as_mut().expect("taken only by finish, which consumes")
    }
}

impl Outgoing {
    /// Everything was written: the end is meant. Waits until the peer's QUIC has all of it.
    pub(crate) async fn finish_and_arrive(mut self) {
        if let Some(mut stream) = self.0.take() {
            // Errors say that the stream or the connection has ended, which the caller learns anyhow.
            let _ = stream.finish();
            let _ = stream.stopped().await;
        }
    }
}

/// Writes one message of the control stream: its length in four bytes, then itself.
pub(crate) async fn write_message(stream: &mut Outgoing, bytes: &[u8]) -> Result<(), End> {
    let mut message = Vec::with_capacity(4 + bytes.len());
    message.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_be_bytes());
    message.extend_from_slice(bytes);
    stream.write_all(&message).await.map_err(|e| End::Lost(e.to_string()))
}

/// Reads one message of the control stream, of at most `cap` bytes.
pub(crate) async fn read_message(stream: &mut RecvStream, cap: usize) -> Result<Vec<u8>, End> {
    let lost = |error| match error {
        ReadExactError::FinishedEarly(_) => End::Protocol("the control stream ended".to_owned()),
        ReadExactError::ReadError(ReadError::Reset(_)) => {
            End::Protocol("the control stream was reset".to_owned())
        }
        ReadExactError::ReadError(error) => End::Lost(format!("control stream: {error}")),
    };
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.map_err(lost)?;
    let length = u32::from_be_bytes(length) as usize;
    if length > cap {
        return Err(End::Protocol(format!("control message of {length} bytes is over {cap}")));
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await.map_err(lost)?;
    Ok(bytes)
}
