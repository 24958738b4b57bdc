//! Keys and values are bytes: how they are given on a command line, and how they are shown.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use base64::DecodeError;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use clap::Args;
use rhumb_actors::ranges::messages::MAX_BYTES;

use super::super::output::Failure;

/// The most that is read of a file of writes: 256 of them with as many bytes as may be, in base64, and what is around them.
const MAX_TEXT: usize = 8 * MAX_BYTES;

/// How keys and values are given and shown.
#[derive(Debug, Clone, Copy, Args)]
pub(in crate::cli) struct Coded {
    /// Keys and values are given in base64, of either alphabet and with padding or without, and are shown so.
    #[arg(long)]
    pub(super) base64: bool,
}

impl Coded {
    /// The bytes that an argument says.
    ///
    /// # Errors
    /// [`Failure::Usage`]: it is no base64, and was to be.
    pub(in crate::cli) fn read(self, what: &str, text: &str) -> Result<Vec<u8>, Failure> {
        if !self.base64 {
            return Ok(text.as_bytes().to_vec());
        }
        decode(text).map_err(|why| {
            Failure::Usage(format!("{what} is no base64 ({why}): expected such as aGVsbG8, or no --base64"))
        })
    }

    /// Bytes as text, or in base64.
    pub(super) fn told(self, bytes: Vec<u8>) -> (Option<String>, Option<String>) {
        match String::from_utf8(bytes) {
            Ok(text) if !self.base64 => (Some(text), None),
            Ok(text) => (None, Some(encode(text.as_bytes()))),
            Err(error) => (None, Some(encode(error.as_bytes()))),
        }
    }
}

pub(super) fn encode(bytes: &[u8]) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The bytes of base64, of either alphabet.
pub(super) fn decode(text: &str) -> Result<Vec<u8>, DecodeError> {
    let padded = text.len().is_multiple_of(4);
    let text = if padded { text.trim_end_matches('=') } else { text };
    BASE64_URL_SAFE_NO_PAD.decode(text.replace('+', "-").replace('/', "_"))
}

/// Whether this stands for standard input or output.
pub(super) fn is_standard(path: &Path) -> bool {
    path == Path::new("-")
}

/// What is in a file, if that may be a value.
pub(super) fn read_value(path: &Path) -> Result<Vec<u8>, Failure> {
    read(path, MAX_BYTES, "a value and its key")
}

/// What is in a file, as text.
pub(super) fn read_text(path: &Path) -> Result<String, Failure> {
    let bytes = read(path, MAX_TEXT, "writes of one batch")?;
    String::from_utf8(bytes).map_err(|_| Failure::Usage(format!("{} is no text (UTF-8)", path.display())))
}

fn read(path: &Path, most: usize, what: &str) -> Result<Vec<u8>, Failure> {
    let cannot = |error: io::Error| Failure::Usage(format!("{} cannot be read: {error}", path.display()));
    let from: Box<dyn Read> = match is_standard(path) {
        true => Box::new(io::stdin()),
        false => Box::new(File::open(path).map_err(cannot)?),
    };
    let mut bytes = Vec::new();
    from.take(most as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() > most {
        let why = format!("{} has more than {most} bytes: expected that at most, of {what}", path.display());
        return Err(Failure::Usage(why));
    }
    Ok(bytes)
}

/// Writes a value, byte for byte.
pub(super) fn write_value(path: &Path, value: &[u8]) -> Result<(), Failure> {
    let written = match is_standard(path) {
        true => {
            let mut out = io::stdout().lock();
            out.write_all(value).and_then(|()| out.flush())
        }
        false => std::fs::write(path, value),
    };
    written.map_err(|error| Failure::local(format!("{} cannot be written: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_in_either_alphabet_and_shown_in_one() {
        let coded = Coded { base64: true };
        for text in ["-_8", "+/8", "-_8=", "+/8="] {
            assert_eq!(coded.read("the key", text).expect("it is base64"), [0xfb, 0xff], "{text}");
        }
        assert_eq!(coded.told(vec![0xfb, 0xff]), (None, Some("-_8".to_owned())));
        assert_eq!(coded.told(b"ann".to_vec()), (None, Some("YW5u".to_owned())));
        assert_eq!(coded.read("--from", "").expect("nothing"), Vec::<u8>::new());
        for wrong in ["a", "-_8==", "an nn", "-_9"] {
            let Err(Failure::Usage(why)) = coded.read("the key", wrong) else { panic!("{wrong} is none") };
            assert!(why.starts_with("the key is no base64 (") && why.ends_with("or no --base64"), "{why}");
        }
    }

    #[test]
    fn what_is_no_text_is_shown_in_base64() {
        let coded = Coded { base64: false };
        assert_eq!(coded.told(b"ann".to_vec()), (Some("ann".to_owned()), None));
        assert_eq!(coded.told(vec![0xfb, 0xff]), (None, Some("-_8".to_owned())));
        assert_eq!(coded.read("the key", "a=").expect("text"), b"a=");
    }

    #[test]
    fn a_file_that_is_larger_than_a_value_may_be_is_not_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("value");
        std::fs::write(&file, vec![7; MAX_BYTES]).expect("written");
        assert_eq!(read_value(&file).expect("as large as may be").len(), MAX_BYTES);
        std::fs::write(&file, vec![7; MAX_BYTES + 1]).expect("written");
        let Err(Failure::Usage(why)) = read_value(&file) else { panic!("too large") };
        assert!(
            why.ends_with("value has more than 262144 bytes: expected that at most, of a value and its key"),
            "{why}"
        );
        let Err(Failure::Usage(why)) = read_value(&folder.path().join("none")) else { panic!("not there") };
        assert!(why.contains("none cannot be read: "), "{why}");
    }
}
