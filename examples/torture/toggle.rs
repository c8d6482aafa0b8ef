//! Options that are changed in mid-traffic.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use fastrand::Rng;

use crate::report::Count;
use crate::side::Side;

/// Whether messages may have come with control data that their sender did not add.
#[derive(Debug, Default)]
pub struct Marks {
    any: AtomicBool,
    pidfds: AtomicBool,
}

impl Marks {
    /// Credentials, or times: a stream of messages asks for these.
    pub fn add(&self) {
        self.any.store(true, Ordering::SeqCst);
    }

    pub fn any(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    /// Descriptors of the sending process.
    pub fn pidfds(&self) -> bool {
        self.pidfds.load(Ordering::SeqCst)
    }
}

pub fn toggle(side: &Side, rng: &mut Rng) {
    let on = rng.bool();
    let set = match rng.u8(..4) {
        0 => side.socket.set_recv_buffer_size(rng.usize(1..1 << 16)),
        1 => {
            side.marks.add();
            side.marks.pidfds.fetch_or(on, Ordering::SeqCst);
            side.socket.set_pass_pidfd(on)
        }
        _ if side.plan.marked => return,
        _ => {
            side.marks.add();
            side.socket.set_pass_credentials(on)
        }
    };
    match set {
        Ok(()) => side.count(Count::Toggles, 1),
        // Before Linux 6.5 there are no pidfds.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        Err(error) => side.fail(&format!("an option cannot be set: {error}")),
    }
}
