//! [`UringSupport`]: whether there can be a ring, in words that an operator can act on, and what this process has found out.

use std::fmt;
use std::io;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, Instant};

/// Oldest kernel whose io_uring has everything this crate uses.
pub(super) const OLDEST_KERNEL: (u32, u32) = (6, 1);

pub(super) const SETUP: &str = "io_uring_setup";
pub(super) const ENTER: &str = "io_uring_enter";

/// Says whether io_uring can be used in this process: see [`probe`](crate::probe).
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
    /// A ring was made, and ran an operation.
    Available {
        /// The kernel release, as `uname(2)` returns it.
        kernel: String,
    },
    /// No ring could be made.
    Unavailable(Unavailable),
}

/// Says why io_uring cannot be used. Its text names what would change that.
///
/// ```
/// use tokio_seqpacket::{Unavailable, UringSupport, probe};
///
/// // A hint for the operator of the service.
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
    /// This library makes rings on 64-bit x86, Arm, RISC-V, LoongArch and PowerPC only.
    Processor,
    /// The kernel is older than 6.1.
    KernelTooOld {
        /// The kernel release, as `uname(2)` returns it.
        kernel: String,
    },
    /// `ENOSYS` of `io_uring_setup(2)`: the kernel has no io_uring, or a filter pretends so.
    Missing,
    /// `kernel.io_uring_disabled` forbids it. Linux 6.6 or newer.
    DisabledBySysctl {
        /// 1: allowed for privileged processes and the group of `kernel.io_uring_group`. 2: not allowed for any process.
        value: u32,
    },
    /// `EPERM` or `EACCES` of `io_uring_setup(2)`: a seccomp filter or a security module. The sysctl
    /// is 0, does not exist (before Linux 6.6), or cannot be read.
    Denied,
    /// `io_uring_setup(2)` works, but another system call that a ring needs does not: a seccomp filter allows only a part of
    /// io_uring.
    Refused {
        /// The name of the call, such as `io_uring_enter`.
        call: &'static str,
        /// The errno. 0: it returns at once and does nothing.
        errno: i32,
    },
    /// `ENOMEM`: there is no memory, or the limit on locked memory is used up (`RLIMIT_MEMLOCK`, counted per user, on a kernel
    /// that counts rings).
    MemoryLock {
        /// The limit in bytes, if there is one.
        limit: Option<u64>,
    },
    /// No address space for the receives of a batch: `RLIMIT_AS`, `vm.overcommit_memory=2`, or
    /// `mlockall(2)` with a limit on locked memory.
    AddressSpace {
        /// The errno of `mmap(2)` or `mprotect(2)`.
        errno: i32,
    },
    /// `EMFILE` or `ENFILE`: no file descriptor is left.
    FileDescriptors,
    /// Another error of `io_uring_setup(2)`.
    Other {
        /// The errno.
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
            Self::Processor => f.write_str(
                "this library makes rings on 64-bit x86, Arm, RISC-V, LoongArch and PowerPC only",
            ),
            Self::KernelTooOld { kernel } => write!(
                f,
                "Linux {kernel} is too old, {}.{} or newer is needed",
                OLDEST_KERNEL.0, OLDEST_KERNEL.1
            ),
            Self::Missing => f.write_str(
                "the kernel does not have io_uring_setup (ENOSYS): it was built without \
                 CONFIG_IO_URING, or a seccomp filter hides the call, as some container runtimes do",
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
                "io_uring_setup is denied (EPERM or EACCES) by a seccomp filter or a security module: \
                 allow io_uring_setup and io_uring_enter in the seccomp profile of the container or \
                 service, or in the security module's policy (where /proc cannot be read, it may also \
                 be the sysctl kernel.io_uring_disabled)",
            ),
            Self::Refused { call, errno: 0 } => write!(
                f,
                "{call} returns and does nothing, though io_uring_setup works; allow {call} in the \
                 seccomp profile of the container or service"
            ),
            Self::Refused { call, errno } => {
                let error = io::Error::from_raw_os_error(*errno);
                write!(f, "{call} is refused, though io_uring_setup works: {error}")?;
                if is_final(*errno) {
                    write!(
                        f,
                        "; allow {call} in the seccomp profile of the container or service, or in the \
                         security module's policy"
                    )?;
                }
                Ok(())
            }
            Self::MemoryLock { limit: Some(limit) } => write!(
                f,
                "the limit on locked memory, {limit} bytes for all processes of this user together, \
                 is used up: raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK= in systemd)"
            ),
            Self::MemoryLock { limit: None } => {
                f.write_str("the kernel is out of memory for a ring (ENOMEM)")
            }
            Self::AddressSpace { errno } => write!(
                f,
                "no address space for the receives of a batch (RLIMIT_AS, ulimit -v, \
                 vm.overcommit_memory, or mlockall(2) with a limit on locked memory): {}",
                io::Error::from_raw_os_error(*errno)
            ),
            Self::FileDescriptors => f.write_str(
                "no file descriptor is left (EMFILE): raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE= \
                 in systemd)",
            ),
            Self::Other { errno } => {
                write!(f, "{SETUP}: {}", io::Error::from_raw_os_error(*errno))
            }
        }
    }
}

impl From<Unavailable> for io::Error {
    fn from(why: Unavailable) -> Self {
        Self::new(io::ErrorKind::Unsupported, UringSupport::Unavailable(why).to_string())
    }
}

impl Unavailable {
    /// Returns the meaning of an error of `io_uring_setup(2)`, or of mapping the queues.
    pub(super) fn at_setup(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::ENOSYS) => Self::Missing,
            Some(libc::EPERM | libc::EACCES) => match sysctl() {
                Some(value @ 1..) => Self::DisabledBySysctl { value },
                _ => Self::Denied,
            },
            // mmap(2) returns EAGAIN where all memory has to be locked and that would exceed the limit.
            Some(libc::ENOMEM | libc::EAGAIN) => Self::MemoryLock {
                limit: rustix::process::getrlimit(rustix::process::Resource::Memlock).current,
            },
            Some(libc::EMFILE | libc::ENFILE) => Self::FileDescriptors,
            errno => Self::Other { errno: errno.unwrap_or(0) },
        }
    }

    /// Returns the meaning of an error of `io_uring_enter(2)`, on a ring that was set up.
    pub(super) fn at_enter(error: &io::Error) -> Self {
        Self::Refused { call: ENTER, errno: error.raw_os_error().unwrap_or(0) }
    }

    /// Returns for how long sockets are made without asking again, or `None` for the life of this process. Filters are never
    /// removed. Sysctls and limits change.
    fn holds_for(&self) -> Option<Duration> {
        match self {
            Self::Processor | Self::KernelTooOld { .. } | Self::Missing | Self::Denied => None,
            Self::Refused { errno, .. } | Self::Other { errno } if is_final(*errno) => None,
            Self::DisabledBySysctl { .. } => Some(Duration::from_secs(1)),
            _ => Some(Duration::from_millis(100)),
        }
    }
}

/// Returns whether asking again gets the same answer.
fn is_final(errno: i32) -> bool {
    matches!(errno, 0 | libc::ENOSYS | libc::EPERM | libc::EACCES | libc::EINVAL | libc::EOPNOTSUPP)
}

/// What this process has found out.
enum Known {
    ForGood(UringSupport),
    RefusedUntil(Instant),
}

static KNOWN: RwLock<Option<Known>> = RwLock::new(None);

pub(super) fn known_for_good() -> Option<UringSupport> {
    match &*KNOWN.read().unwrap_or_else(PoisonError::into_inner) {
        Some(Known::ForGood(support)) => Some(support.clone()),
        _ => None,
    }
}

/// Returns whether sockets that are made now use io_uring, or `None` if the kernel has to be asked.
pub(super) fn known_now() -> Option<bool> {
    match &*KNOWN.read().unwrap_or_else(PoisonError::into_inner) {
        Some(Known::ForGood(support)) => Some(matches!(support, UringSupport::Available { .. })),
        Some(Known::RefusedUntil(then)) if Instant::now() < *then => Some(false),
        _ => None,
    }
}

/// Remembers an answer, for as long as it holds.
pub(super) fn remember(support: &UringSupport) {
    let holds_for = match support {
        UringSupport::Available { .. } => None,
        UringSupport::Unavailable(why) => why.holds_for(),
    };
    let known = match holds_for {
        None => Known::ForGood(support.clone()),
        Some(time) => Known::RefusedUntil(Instant::now() + time),
    };
    *KNOWN.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
}

/// Remembers that a ring was refused, or refused service, if that lasts. No socket asks again then.
pub(super) fn refused(why: &Unavailable) {
    if why.holds_for().is_none() {
        remember(&UringSupport::Unavailable(why.clone()));
    }
}

fn sysctl() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_names_what_to_change() {
        let words = |errno| Unavailable::at_setup(&io::Error::from_raw_os_error(errno)).to_string();
        assert!(words(libc::ENOSYS).contains("CONFIG_IO_URING"));
        assert!(words(libc::EMFILE).contains("RLIMIT_NOFILE"));
        assert!(words(libc::EPERM).contains("io_uring"));
        assert!(words(libc::EINVAL).contains(SETUP));
        assert!(Unavailable::MemoryLock { limit: Some(65536) }.to_string().contains("65536"));
        assert!(Unavailable::DisabledBySysctl { value: 2 }.to_string().contains("set it to 0"));
        for errno in [libc::EPERM, libc::EINVAL, 0] {
            let why = Unavailable::Refused { call: ENTER, errno }.to_string();
            assert!(why.contains("allow io_uring_enter"), "{why}");
        }
    }

    /// `EACCES` of a security module also comes where that sysctl does not exist, or /proc is not mounted.
    #[test]
    fn a_denial_claims_nothing_about_the_sysctl_or_the_errno() {
        let words = Unavailable::Denied.to_string();
        assert!(words.contains("EACCES") && words.contains("seccomp"), "{words}");
        assert!(!words.contains("io_uring_disabled is 0"), "{words}");
    }

    #[test]
    fn shortages_are_no_final_answer_and_denials_are() {
        let at_setup = |errno| Unavailable::at_setup(&io::Error::from_raw_os_error(errno));
        let at_enter = |errno| Unavailable::at_enter(&io::Error::from_raw_os_error(errno));
        for errno in [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN, libc::EBADF] {
            assert!(at_setup(errno).holds_for().is_some(), "{errno}");
            assert!(at_enter(errno).holds_for().is_some(), "{errno}");
        }
        for errno in [libc::ENOSYS, libc::EINVAL, libc::EOPNOTSUPP] {
            assert_eq!(at_setup(errno).holds_for(), None, "{errno}");
            assert_eq!(at_enter(errno).holds_for(), None, "{errno}");
        }
        for errno in [libc::EPERM, libc::EACCES] {
            // At set-up it may be the sysctl.
            assert_eq!(at_enter(errno).holds_for(), None, "{errno}");
        }
        assert_eq!(Unavailable::Denied.holds_for(), None);
        assert!(Unavailable::AddressSpace { errno: libc::ENOMEM }.holds_for().is_some());
    }
}
