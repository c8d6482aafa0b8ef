//! The contestants. A new one needs a `Library` if it runs on tokio, else a `Contestant`, and a line in
//! [`candidates`].

use std::time::Duration;

use crate::libraries::{ours, tokio_net, uds, upstream};
use crate::loops::{calls, monoio, ring};
use crate::rig::OnTokio;
use crate::work::{SMALL, Setting, Work};

/// The one that the others are compared with.
pub const REFERENCE: &str = "tokio-seqpacket 0.8.2";
/// Those of the table of goals.
pub const URING: &str = "io_uring";
pub const URING_OWNED: &str = "io_uring, owned";
pub const EPOLL: &str = "epoll";

pub trait Contestant {
    fn name(&self) -> &'static str;
    /// Seven letters at most.
    fn short(&self) -> &'static str;
    /// Sockets, and what runs them, for one row. The error is the reason why it cannot take part.
    fn rig(&self, setting: Setting, work: Work) -> Result<Box<dyn Rig>, String>;
    /// Make this many sockets, each with a receive pending, and keep them while `sample` runs.
    fn idle(&self, count: usize, sample: &mut dyn FnMut()) -> Result<(), String>;
}

pub trait Rig {
    /// Do the row's work `each` times for every pair or task.
    fn round(&mut self, each: usize) -> Result<Round, String>;
}

#[derive(Debug, Default)]
pub struct Round {
    pub took: Duration,
    pub operations: usize,
    /// Nanoseconds of single operations, for rows that time each.
    pub samples: Vec<f64>,
}

/// All contestants, the reference first.
pub fn candidates() -> Vec<Box<dyn Contestant>> {
    vec![
        Box::new(OnTokio::new(REFERENCE, "0.8.2", upstream::Current)),
        Box::new(OnTokio::new(URING, "uring", ours::URING)),
        Box::new(OnTokio::new(URING_OWNED, "ur.own", ours::URING_OWNED)),
        Box::new(OnTokio::new("io_uring, ring", "ur.ring", ours::RING).round_trips()),
        Box::new(OnTokio::new("io_uring, direct", "ur.dir", ours::DIRECT).round_trips()),
        Box::new(OnTokio::new(EPOLL, "epoll", ours::EPOLL)),
        Box::new(OnTokio::new("epoll, owned", "ep.own", ours::EPOLL_OWNED)),
        Box::new(OnTokio::new("tokio-seqpacket 0.8.2, budgeted", "budget", upstream::Budgeted)),
        Box::new(OnTokio::new("tokio-seqpacket 0.9", "0.9", upstream::Next)),
        Box::new(OnTokio::new("uds", "uds", uds::Uds)),
        Box::new(monoio::Monoio),
        Box::new(OnTokio::new("tokio UnixDatagram", "dgram", tokio_net::Datagram)),
        Box::new(OnTokio::new("tokio UnixStream, framed", "stream", tokio_net::Framed)),
        Box::new(calls::Calls::Epoll),
        Box::new(calls::Calls::Sweep),
        Box::new(ring::RawRing::Plain),
        Box::new(ring::RawRing::Messages),
        Box::new(ring::RawRing::Multishot),
    ]
}

/// Those that work here, and why the others do not.
pub fn able() -> (Vec<Box<dyn Contestant>>, Vec<String>) {
    let (mut able, mut reasons) = (Vec::new(), Vec::new());
    let echo = Work::Echo { pairs: 1, size: SMALL, descriptor: false };
    for candidate in candidates() {
        // Some take part in rows of two threads only.
        let rig = candidate
            .rig(Setting::CurrentThread, echo)
            .or_else(|reason| candidate.rig(Setting::TwoRuntimes, echo).map_err(|_| reason));
        let tried = rig.and_then(|mut rig| rig.round(1));
        match tried {
            Ok(_) => able.push(candidate),
            Err(reason) => reasons.push(format!("{}: {reason}", candidate.name())),
        }
    }
    (able, reasons)
}
