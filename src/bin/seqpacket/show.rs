//! Time marks, senders and lengths as text.

use std::fmt::{self, Display};
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_of_the_day() {
        let time = Duration::new(24 * 3600 * 7 + 3600 * 23 + 60 * 4 + 5, 6_007_000);
        assert_eq!(Time(time).to_string(), "23:04:05.006007");
    }
}
