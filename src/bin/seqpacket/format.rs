//! How messages stand in stdin and stdout.

use std::io::{self, BufRead, Read};

/// Length of the largest message, which is what the kernel holds in one piece.
pub const LARGEST: usize = (4 << 20) + (256 << 10);

/// How stdin is split into messages.
#[derive(Debug, Clone, Copy)]
pub enum Format {
    /// A line is a message, without its newline.
    Lines,
    /// A line is a message in hexadecimal, blanks between bytes allowed.
    Hex,
    /// So many bytes are a message, and those left at the end.
    Chunks(usize),
    /// What one read(2) of at most so many bytes returns is a message.
    Raw(usize),
    /// Four bytes, big-endian, are the length of the message after them.
    LengthPrefix,
}

impl Format {
    /// Reads the next message, or `None` at the end. `line` counts lines for errors.
    pub fn next(self, from: &mut impl BufRead, line: &mut u64) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Lines => next_line(from, line),
            Self::Hex => {
                let Some(text) = next_line(from, line)? else { return Ok(None) };
                let bytes = from_hex(&text).ok_or_else(|| {
                    invalid(format!("line {line} of stdin is not hexadecimal, two digits a byte"))
                })?;
                Ok(Some(bytes))
            }
            Self::Chunks(size) => {
                let mut bytes = Vec::new();
                from.take(size as u64).read_to_end(&mut bytes)?;
                Ok((!bytes.is_empty()).then_some(bytes))
            }
            // A reader passes a read of at least its own capacity on as it is.
            Self::Raw(size) => {
                let mut bytes = vec![0; size];
                let len = loop {
                    match from.read(&mut bytes) {
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        read => break read?,
                    }
                };
                bytes.truncate(len);
                Ok((len > 0).then_some(bytes))
            }
            Self::LengthPrefix => next_prefixed(from),
        }
    }

    /// Capacity of the reader that [`next`](Self::next) gets: none where reads are messages.
    pub fn read_ahead(self) -> usize {
        if let Self::Raw(_) = self { 0 } else { 64 << 10 }
    }
}

fn invalid(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

fn next_line(from: &mut impl BufRead, line: &mut u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    if from.read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    *line += 1;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    Ok(Some(bytes))
}

fn next_prefixed(from: &mut impl BufRead) -> io::Result<Option<Vec<u8>>> {
    let mut prefix = Vec::new();
    from.take(4).read_to_end(&mut prefix)?;
    let Ok(prefix) = <[u8; 4]>::try_from(&prefix[..]) else {
        let ended = prefix.is_empty().then_some(None);
        return ended.ok_or_else(|| invalid("stdin ends within a length of 4 bytes".into()));
    };
    let len = u32::from_be_bytes(prefix) as usize;
    if len > LARGEST {
        return Err(invalid(format!(
            "stdin announces a message of {len} bytes: the largest has {LARGEST}"
        )));
    }
    let mut bytes = Vec::new();
    from.take(len as u64).read_to_end(&mut bytes)?;
    if bytes.len() < len {
        let there = bytes.len();
        return Err(invalid(format!("stdin ends within a message: {there} of {len} bytes")));
    }
    Ok(Some(bytes))
}

fn from_hex(text: &[u8]) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .iter()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| char::from(*byte).to_digit(16).map(|digit| digit as u8))
        .collect();
    let digits = digits?;
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    Some(pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

/// How messages are written to stdout.
#[derive(Debug, Clone)]
pub enum Layout {
    /// As they are, or in hexadecimal, each with these bytes after it.
    Separated { hex: bool, separator: Vec<u8> },
    /// Each with its length before it, as in [`Format::LengthPrefix`].
    LengthPrefix,
}

impl Layout {
    /// Returns what stands in stdout for a message, of a client if there are several.
    pub fn put(&self, message: &[u8], client: Option<u32>) -> Vec<u8> {
        match self {
            Self::LengthPrefix => {
                let client = client.map(u32::to_be_bytes);
                let client = client.as_ref().map_or(&[][..], |number| number);
                let len = (client.len() + message.len()) as u32;
                [&len.to_be_bytes(), client, message].concat()
            }
            Self::Separated { hex, separator } => {
                let mut bytes = client.map_or(String::new(), |n| format!("{n}: ")).into_bytes();
                if *hex {
                    bytes.extend(message.iter().flat_map(|byte| {
                        [byte >> 4, byte & 0xf].map(|digit| b"0123456789abcdef"[digit as usize])
                    }));
                } else {
                    bytes.extend(message);
                }
                bytes.extend(separator);
                bytes
            }
        }
    }
}

/// Bytes after each message: text with the escapes `\n`, `\r`, `\t`, `\0`, `\\` and `\xFF`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Separator(pub Vec<u8>);

impl std::str::FromStr for Separator {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut bytes = Vec::new();
        let mut rest = text.as_bytes();
        while let [first, after @ ..] = rest {
            rest = after;
            if *first != b'\\' {
                bytes.push(*first);
                continue;
            }
            let (byte, after) = match rest {
                [b'n', after @ ..] => (b'\n', after),
                [b'r', after @ ..] => (b'\r', after),
                [b't', after @ ..] => (b'\t', after),
                [b'0', after @ ..] => (0, after),
                [b'\\', after @ ..] => (b'\\', after),
                [b'x', high, low, after @ ..] => match from_hex(&[*high, *low]).as_deref() {
                    Some([byte]) => (*byte, after),
                    _ => return Err("\\x needs two hexadecimal digits".into()),
                },
                _ => return Err("the escapes are \\n \\r \\t \\0 \\\\ and \\xFF".into()),
            };
            bytes.push(byte);
            rest = after;
        }
        Ok(Self(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], format: Format) -> io::Result<Vec<Vec<u8>>> {
        let (mut from, mut line) = (text, 0);
        std::iter::from_fn(|| format.next(&mut from, &mut line).transpose()).collect()
    }

    #[test]
    fn lines_are_messages_and_an_empty_line_an_empty_message() {
        let found = all(b"one\n\nthree", Format::Lines).unwrap();
        assert_eq!(found, [&b"one"[..], b"", b"three"]);
    }

    #[test]
    fn hexadecimal_may_have_blanks() {
        assert_eq!(all(b"00 fF10\n\n", Format::Hex).unwrap(), [&[0, 255, 16][..], &[]]);
        let error = all(b"00\n0\n", Format::Hex).unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(all(b"xx", Format::Hex).is_err());
    }

    #[test]
    fn chunks_have_their_size_but_for_the_last() {
        assert_eq!(all(b"abcde", Format::Chunks(2)).unwrap(), [&b"ab"[..], b"cd", b"e"]);
    }

    #[test]
    fn a_raw_message_ends_with_its_read_and_an_empty_read_is_the_end() {
        struct Reads(Vec<&'static [u8]>);
        impl Read for Reads {
            fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
                let next = self.0.remove(0);
                to[..next.len()].copy_from_slice(next);
                Ok(next.len())
            }
        }
        let reads = Reads(vec![b"a\nb\n", b"c", b"", b"not read"]);
        let format = Format::Raw(4);
        let mut from = io::BufReader::with_capacity(format.read_ahead(), reads);
        let mut next = || format.next(&mut from, &mut 0).unwrap();
        assert_eq!(next().unwrap(), b"a\nb\n");
        assert_eq!(next().unwrap(), b"c");
        assert_eq!(next(), None);
    }

    #[test]
    fn a_length_prefix_keeps_empty_messages_and_says_what_is_missing() {
        let text = b"\0\0\0\x02ab\0\0\0\0\0\0\0\x01c";
        assert_eq!(all(text, Format::LengthPrefix).unwrap(), [&b"ab"[..], b"", b"c"]);
        for (text, word) in [
            (&b"\0\0"[..], "within a length"),
            (b"\0\0\0\x03ab", "2 of 3 bytes"),
            (b"\xff\0\0\0", "the largest"),
        ] {
            let error = all(text, Format::LengthPrefix).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            assert!(error.to_string().contains(word), "{error}");
        }
    }

    #[test]
    fn what_is_written_with_a_length_prefix_can_be_read() {
        let put = |message| Layout::LengthPrefix.put(message, None);
        let text = [put(b"one"), put(b"")].concat();
        assert_eq!(all(&text, Format::LengthPrefix).unwrap(), [&b"one"[..], b""]);
        assert_eq!(Layout::LengthPrefix.put(b"m", Some(7)), b"\0\0\0\x05\0\0\0\x07m");
    }

    #[test]
    fn a_separator_is_text_with_escapes() {
        let parsed = |text: &str| text.parse::<Separator>().map(|separator| separator.0);
        assert_eq!(parsed(r"--\r\n\t\0\\\xfF").unwrap(), b"--\r\n\t\0\\\xff");
        assert_eq!(parsed("").unwrap(), b"");
        for wrong in [r"\", r"\q", r"\x1", r"\xg0", r"\x 1"] {
            assert!(parsed(wrong).is_err(), "{wrong}");
        }
        let layout = Layout::Separated { hex: true, separator: b";".to_vec() };
        assert_eq!(layout.put(b"\x00\xff", Some(2)), b"2: 00ff;");
    }
}
