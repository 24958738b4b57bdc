//! Where one frame ends and the next begins.

use bytes::{Buf, Bytes, BytesMut};

use super::{Broken, FIXED, MAGIC, MAX_HEAD, VERSION};

/// Room that is made for the rest of any frame.
const READY_BYTES: usize = 4 << 10;
/// Bytes for which room is made at most for each byte that has come.
const FOR_EACH: usize = 3;

/// Cuts a stream of bytes into frames. The cap is checked before anything is set aside for a frame.
#[derive(Debug)]
pub struct Deframer {
    pub(super) buffer: BytesMut,
    cap: usize,
    /// Of the present frame, for all of which there is room.
    ready: usize,
}

impl Deframer {
    /// Frames of at most `cap` bytes.
    #[must_use]
    pub fn new(cap: usize) -> Self {
        Self { buffer: BytesMut::new(), cap, ready: 0 }
    }

    /// Takes bytes as they come.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it has come.
    ///
    /// # Errors
    /// [`Broken`]: the stream cannot be read any further.
    pub fn next_frame(&mut self) -> Result<Option<Bytes>, Broken> {
        let Some(lengths) = Lengths::read(&self.buffer, self.cap)? else { return Ok(None) };
        if self.buffer.len() < lengths.total() {
            // A claimed length alone takes up nothing. Once a part of a large frame has come, the rest is set aside in one piece.
            let missing = lengths.total() - self.buffer.len();
            if missing <= READY_BYTES.max(self.buffer.len() * FOR_EACH) {
                self.buffer.reserve(missing);
                self.ready = lengths.total();
            }
            return Ok(None);
        }
        self.ready = 0;
        Ok(Some(self.buffer.split_to(lengths.total()).freeze()))
    }

    /// Bytes that are set aside once so many more have come: those that have come, or the frame for all of which there is room.
    #[must_use]
    pub fn set_aside_for(&self, more: usize) -> usize {
        self.ready.max(self.buffer.len() + more)
    }

    /// Whether part of a frame has come. A stream that ends here was cut.
    #[must_use]
    pub fn mid_frame(&self) -> bool {
        !self.buffer.is_empty()
    }
}

/// The lengths of a frame, checked against the cap.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lengths {
    pub(super) head: usize,
    pub(super) body: usize,
}

impl Lengths {
    /// Reads them from the first bytes of a frame; `None` when there are too few.
    pub(super) fn read(bytes: &[u8], cap: usize) -> Result<Option<Self>, Broken> {
        if bytes.len() < FIXED {
            return Ok(None);
        }
        let mut at = bytes;
        let magic = at.get_u16();
        if magic != MAGIC {
            return Err(Broken::Magic(magic));
        }
        let version = at.get_u8();
        if version != VERSION {
            return Err(Broken::Version(version));
        }
        at.advance(3);
        let head = usize::from(at.get_u16());
        if !(FIXED..=MAX_HEAD).contains(&head) {
            return Err(Broken::Head(head));
        }
        let lengths = Self { head, body: at.get_u32() as usize };
        if lengths.total() > cap {
            return Err(Broken::OverCap { bytes: lengths.total(), cap });
        }
        Ok(Some(lengths))
    }

    pub(super) fn total(self) -> usize {
        self.head.saturating_add(self.body)
    }
}
