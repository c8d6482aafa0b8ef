//! Finds out whether a ring can be made here, by making one as a worker does ([`Ring::smallest`]). A filter may allow one
//! system call and refuse the next. What cannot change is remembered for the process. A worker whose ring is refused later
//! corrects it.

use std::sync::{Mutex, PoisonError};

use super::ring::Ring;
use super::support::{self, OLDEST_KERNEL, Unavailable, UringSupport};

/// Finds out whether io_uring can be used in this process, by making a small ring and running an operation.
///
/// A success is remembered for the life of the process, and so is a refusal that lasts: the kernel, or a filter. Where a later
/// ring is refused by a filter, that is remembered instead. A sysctl and exhausted limits are checked again by each call.
///
/// ```
/// println!("{}", tokio_seqpacket::probe());
/// ```
pub fn probe() -> UringSupport {
    // One at a time: rings count against the memory lock, and are released late.
    static PROBING: Mutex<()> = Mutex::new(());
    if let Some(known) = support::known_for_good() {
        return known;
    }
    let _one = PROBING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = support::known_for_good() {
        return known;
    }
    let support = ask();
    support::remember(&support);
    support
}

/// Returns whether io_uring can be used, for making sockets. A refusal is remembered for a while, not checked for each of them.
pub(crate) fn is_available() -> bool {
    support::known_now().unwrap_or_else(|| matches!(probe(), UringSupport::Available { .. }))
}

fn ask() -> UringSupport {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    if version(&kernel).is_some_and(|version| version < OLDEST_KERNEL) {
        return UringSupport::Unavailable(Unavailable::KernelTooOld { kernel });
    }
    match Ring::smallest() {
        Ok(_) => UringSupport::Available { kernel },
        Err(why) => UringSupport::Unavailable(why),
    }
}

/// Returns the major and minor version of a kernel release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        assert_eq!(version("6.18.44-fc-v769"), Some((6, 18)));
        assert_eq!(version("5.15.0"), Some((5, 15)));
        assert!(version("6.0.1") < Some(OLDEST_KERNEL));
        assert!(version("6.10") > Some(OLDEST_KERNEL));
        assert_eq!(version("nonsense"), None);
    }
}
