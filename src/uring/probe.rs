//! Whether a ring can be had here, in words that an operator can act on.

use std::fmt;
use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use io_uring::IoUring;

/// Oldest kernel whose io_uring has everything this crate uses.
const OLDEST_KERNEL: (u32, u32) = (6, 1);

/// Whether io_uring can be used in this process; see [`probe()`].
///
/// ```
/// use tokio_seqpacket::{UringSupport, probe};
///
/// match probe() {
///     UringSupport::Available { kernel } => println!("io_uring on Linux {kernel}"),
///     UringSupport::Unavailable(why) => println!("epoll, because: {why}"),
///     _ => {}
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum UringSupport {
    /// A ring was made.
    Available {
        /// Kernel release, as `uname(2)` tells it.
        kernel: String,
    },
    /// No ring could be made.
    Unavailable(Unavailable),
}

/// Why io_uring cannot be used. The text says what would change it.
///
/// ```
/// use tokio_seqpacket::{Unavailable, UringSupport, probe};
///
/// // A hint for whoever runs the service.
/// let hint = match probe() {
///     UringSupport::Unavailable(Unavailable::FileDescriptors) => "raise LimitNOFILE=".into(),
///     UringSupport::Unavailable(why) => why.to_string(),
///     _ => String::new(),
/// };
/// # drop(hint);
/// assert!(Unavailable::DisabledBySysctl { value: 2 }.to_string().contains("set it to 0"));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unavailable {
    /// The kernel is older than 6.1.
    KernelTooOld {
        /// Kernel release, as `uname(2)` tells it.
        kernel: String,
    },
    /// The kernel has no io_uring, or a filter pretends so (`ENOSYS`).
    Missing,
    /// `kernel.io_uring_disabled` forbids it.
    DisabledBySysctl {
        /// 1: allowed for privileged processes and the group of `kernel.io_uring_group`; 2: for
        /// nobody.
        value: u32,
    },
    /// `EPERM` or `EACCES` with the sysctl at 0: a seccomp filter or a security module.
    Denied,
    /// `ENOMEM`: the limit on locked memory (`RLIMIT_MEMLOCK`, counted per user) is used up.
    MemoryLock {
        /// The limit in bytes, if there is one.
        limit: Option<u64>,
    },
    /// `EMFILE` or `ENFILE`: no file descriptor is left.
    FileDescriptors,
    /// Something else.
    Other {
        /// The error number.
        errno: i32,
    },
}

impl fmt::Display for UringSupport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Available { kernel } => write!(f, "io_uring is available (Linux {kernel})"),
            Self::Unavailable(why) => write!(f, "io_uring is not available: {why}"),
        }
    }
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KernelTooOld { kernel } => write!(
                f,
                "Linux {kernel} is too old, {}.{} or newer is needed",
                OLDEST_KERNEL.0, OLDEST_KERNEL.1
            ),
            Self::Missing => f.write_str(
                "the kernel does not have the system calls (ENOSYS): it was built without \
                 CONFIG_IO_URING, or a seccomp filter hides them, as some container runtimes do",
            ),
            Self::DisabledBySysctl { value: 1 } => f.write_str(
                "the sysctl kernel.io_uring_disabled is 1: set it to 0, give the process \
                 CAP_SYS_ADMIN, or put it into the group named by kernel.io_uring_group",
            ),
            Self::DisabledBySysctl { value } => write!(
                f,
                "the sysctl kernel.io_uring_disabled is {value}: set it to 0"
            ),
            Self::Denied => f.write_str(
                "the system calls are denied (EPERM) though kernel.io_uring_disabled is 0: allow \
                 io_uring_setup, io_uring_enter and io_uring_register in the seccomp profile of the \
                 container or service, or in the security module's policy",
            ),
            Self::MemoryLock { limit: Some(limit) } => write!(
                f,
                "the limit on locked memory, {limit} bytes for all processes of this user together, \
                 is used up: raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK= in systemd)"
            ),
            Self::MemoryLock { limit: None } => {
                f.write_str("the kernel is out of memory for a ring (ENOMEM)")
            }
            Self::FileDescriptors => f.write_str(
                "no file descriptor is left (EMFILE): raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE= \
                 in systemd)",
            ),
            Self::Other { errno } => {
                write!(f, "io_uring_setup: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

/// Find out whether io_uring can be used in this process, by making a small ring.
///
/// A success is remembered for the life of the process, a refusal that cannot pass (kernel, ENOSYS)
/// too; the others are asked again, since limits and filters change.
///
/// ```
/// println!("{}", tokio_seqpacket::probe());
/// ```
pub fn probe() -> UringSupport {
    // One at a time: rings count against the memory lock, and are released late.
    static PROBING: Mutex<()> = Mutex::new(());
    if let Some(known) = LASTING.get() {
        return known.clone();
    }
    let _one = PROBING.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(known) = LASTING.get() {
        return known.clone();
    }
    let support = ask();
    match support {
        UringSupport::Available { .. }
        | UringSupport::Unavailable(Unavailable::KernelTooOld { .. } | Unavailable::Missing) => {
            LASTING.get_or_init(|| support).clone()
        }
        UringSupport::Unavailable(_) => support,
    }
}

/// For how long sockets are made without asking again, where rings are denied. Asking takes five system
/// calls, as many as a connection.
const DENIED: Duration = Duration::from_secs(1);

/// What will not change in the life of this process.
static LASTING: OnceLock<UringSupport> = OnceLock::new();

/// As [`probe()`], for those who make sockets: a denial is not asked about for each of them.
pub(crate) fn is_available() -> bool {
    static DENIED_AT: Mutex<Option<Instant>> = Mutex::new(None);
    if let Some(known) = LASTING.get() {
        return matches!(known, UringSupport::Available { .. });
    }
    let denied_at = || DENIED_AT.lock().unwrap_or_else(PoisonError::into_inner);
    if denied_at().is_some_and(|then| then.elapsed() < DENIED) {
        return false;
    }
    match probe() {
        UringSupport::Available { .. } => true,
        UringSupport::Unavailable(why) => {
            let denied = matches!(why, Unavailable::Denied | Unavailable::DisabledBySysctl { .. });
            *denied_at() = denied.then(Instant::now);
            false
        }
    }
}

fn ask() -> UringSupport {
    let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
    if version(&kernel).is_some_and(|version| version < OLDEST_KERNEL) {
        return UringSupport::Unavailable(Unavailable::KernelTooOld { kernel });
    }
    match IoUring::new(1) {
        Ok(_) => UringSupport::Available { kernel },
        Err(error) => UringSupport::Unavailable(explain(&error)),
    }
}

/// What an error of `io_uring_setup(2)` means here.
pub(crate) fn explain(error: &io::Error) -> Unavailable {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => Unavailable::Missing,
        Some(libc::EPERM | libc::EACCES) => match sysctl() {
            Some(value @ 1..) => Unavailable::DisabledBySysctl { value },
            _ => Unavailable::Denied,
        },
        Some(libc::ENOMEM) => Unavailable::MemoryLock {
            limit: rustix::process::getrlimit(rustix::process::Resource::Memlock).current,
        },
        Some(libc::EMFILE | libc::ENFILE) => Unavailable::FileDescriptors,
        errno => Unavailable::Other { errno: errno.unwrap_or(0) },
    }
}

fn sysctl() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

/// Major and minor number of a kernel release.
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

    #[test]
    fn every_refusal_names_what_to_change() {
        let words = |errno| explain(&io::Error::from_raw_os_error(errno)).to_string();
        assert!(words(libc::ENOSYS).contains("CONFIG_IO_URING"));
        assert!(words(libc::EMFILE).contains("RLIMIT_NOFILE"));
        assert!(words(libc::EPERM).contains("io_uring"));
        assert!(Unavailable::MemoryLock { limit: Some(65536) }.to_string().contains("65536"));
        assert!(Unavailable::DisabledBySysctl { value: 2 }.to_string().contains("set it to 0"));
    }
}
