//! stdin and stdout as messages, on threads of their own. So neither an idle terminal nor a pipe that is not read keeps the
//! tool from handling signals.

use std::io::{self, BufRead, Read, Write};

use tokio::sync::mpsc;

/// How messages are written in stdin and stdout.
#[derive(Debug, Clone, Copy)]
pub enum Format {
    /// A line is a message, without its newline.
    Lines,
    /// A line is a message in hexadecimal, blanks between bytes allowed.
    Hex,
    /// So many bytes are a message, and messages are written as they are.
    Chunks(usize),
}

const AHEAD: usize = 16;

/// The messages of stdin. Its thread is not joined.
pub fn input(format: Format) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (give, take) = mpsc::channel(AHEAD);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut line = 0;
        while let Some(message) = next(&mut stdin, format, &mut line).transpose() {
            let failed = message.is_err();
            if give.blocking_send(message).is_err() || failed {
                return;
            }
        }
    });
    take
}

fn next(from: &mut impl BufRead, format: Format, line: &mut u64) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    if let Format::Chunks(size) = format {
        from.take(size as u64).read_to_end(&mut bytes)?;
        return Ok((!bytes.is_empty()).then_some(bytes));
    }
    if from.read_until(b'\n', &mut bytes)? == 0 {
        return Ok(None);
    }
    *line += 1;
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if let Format::Hex = format {
        bytes = from_hex(&bytes).ok_or_else(|| {
            let what = format!("line {line} of stdin is not hexadecimal, two digits a byte");
            io::Error::new(io::ErrorKind::InvalidData, what)
        })?;
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

/// Where messages are written.
pub struct Output {
    format: Format,
    give: mpsc::Sender<Vec<u8>>,
    thread: std::thread::JoinHandle<io::Result<()>>,
}

impl Output {
    pub fn new(format: Format) -> Self {
        let (give, mut take) = mpsc::channel::<Vec<u8>>(AHEAD);
        let thread = std::thread::spawn(move || {
            let mut out = io::stdout().lock();
            while let Some(bytes) = take.blocking_recv() {
                out.write_all(&bytes)?;
                // What has come meanwhile, and then all of it at once.
                while let Ok(more) = take.try_recv() {
                    out.write_all(&more)?;
                }
                out.flush()?;
            }
            Ok(())
        });
        Self { format, give, thread }
    }

    /// Writes a message. Returns `false` if stdout is not read any more.
    pub async fn write(&self, message: &[u8]) -> bool {
        let bytes = match self.format {
            Format::Lines => [message, b"\n"].concat(),
            Format::Hex => {
                let mut text: String = message.iter().map(|byte| format!("{byte:02x}")).collect();
                text.push('\n');
                text.into_bytes()
            }
            Format::Chunks(_) => message.to_vec(),
        };
        self.give.send(bytes).await.is_ok()
    }

    /// Waits until everything is written.
    pub async fn finish(self) -> io::Result<()> {
        drop(self.give);
        let written = tokio::task::spawn_blocking(|| self.thread.join()).await;
        match written.map_err(io::Error::other)?.expect("the thread does not panic") {
            // Without an errno, which distinguishes it from a peer that has gone.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            written => written,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], format: Format) -> io::Result<Vec<Vec<u8>>> {
        let (mut from, mut line) = (text, 0);
        std::iter::from_fn(|| next(&mut from, format, &mut line).transpose()).collect()
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
}
