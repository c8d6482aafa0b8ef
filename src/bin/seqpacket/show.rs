//! Time marks and messages as text.

use std::fmt::{self, Display, Write};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_seqpacket::UCred;

/// The time of the day in UTC, with microseconds.
pub struct Time(Duration);

pub fn now() -> Time {
    Time(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

impl Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs() % (24 * 60 * 60);
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        write!(f, "{hour:02}:{minute:02}:{second:02}.{:06}", self.0.subsec_micros())
    }
}

pub fn sender(credentials: UCred) -> String {
    let pid = credentials.pid().map_or("another namespace".into(), |pid| pid.to_string());
    format!("pid {pid}, uid {}, gid {}", credentials.uid(), credentials.gid())
}

/// Returns `5 bytes`, or `1 byte`.
pub fn bytes(len: usize) -> String {
    format!("{len} byte{}", if len == 1 { "" } else { "s" })
}

/// Returns a message in quotes and with escapes, at most `limit` bytes of it.
pub fn escaped(message: &[u8], limit: usize) -> String {
    let shown = &message[..message.len().min(limit)];
    let mut text = format!("\"{}\"", shown.escape_ascii());
    if shown.len() < message.len() {
        let _ = write!(text, " and {} more", message.len() - shown.len());
    }
    text
}

/// Returns a message as lines of 16 bytes, in hexadecimal and as text, at most `limit` bytes of it.
pub fn dump(message: &[u8], limit: usize) -> String {
    let mut text = String::new();
    let shown = &message[..message.len().min(limit)];
    for (line, bytes) in shown.chunks(16).enumerate() {
        let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let printed: String = bytes
            .iter()
            .map(|byte| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '.' })
            .collect();
        let _ = writeln!(text, "    {:06x}  {:<47}  {printed}", 16 * line, digits.join(" "));
    }
    if shown.len() < message.len() {
        let _ = writeln!(text, "    and {} more", message.len() - shown.len());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_of_the_day() {
        let time = Duration::new(24 * 3600 * 7 + 3600 * 23 + 60 * 4 + 5, 6_007_000);
        assert_eq!(Time(time).to_string(), "23:04:05.006007");
    }

    #[test]
    fn what_is_not_shown_is_counted() {
        assert_eq!(escaped(b"a\"\n\xff", 9), r#""a\"\n\xff""#);
        assert_eq!(escaped(b"abc", 2), r#""ab" and 1 more"#);
        let dump = dump(b"0123456789abcdef\0!?", 18);
        let lines: Vec<&str> = dump.lines().collect();
        assert!(
            lines[0].starts_with("    000000  30 31 32")
                && lines[0].ends_with("  0123456789abcdef")
        );
        assert_eq!(lines[1], format!("    000010  {:<47}  .!", "00 21"));
        assert_eq!(lines[2], "    and 1 more");
    }
}
