//! What a test cannot do without, and how that is found out.

use std::fs;
use std::process::{Command, Stdio};

use tokio::runtime::Builder;
use tokio_seqpacket::{Backend, Options, UringSupport};

/// Set to 1: a test that cannot run here fails.
pub const NO_SKIP: &str = "SEQPACKET_TESTS_NO_SKIP";

/// What a test cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Need {
    Uring,
    /// A runtime of tokio-uring.
    TokioUring,
    /// Pidfds with messages and of peers: Linux 6.5.
    Pidfds,
    /// A program in the path.
    Program(&'static str),
    /// udevd and udevadm, and namespaces in which they run beside those of the machine.
    Udev,
    /// To become another user, to raise limits.
    Root,
    /// To inject errors: strace, and the right to trace.
    Strace,
    /// To give rings less memory: a kernel that counts them against `RLIMIT_MEMLOCK`, as Linux 6.18 does and 6.1 does not.
    /// Together with [`Root`](Self::Root), which comes first.
    CountedRings,
    /// To change `kernel.io_uring_disabled`, which the whole machine sees for a moment.
    Sysctl,
}

pub const SYSCTL: &str = "/proc/sys/kernel/io_uring_disabled";

impl Need {
    /// Why it is missing.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Uring => match tokio_seqpacket::probe() {
                UringSupport::Available { .. } => None,
                unavailable => Some(unavailable.to_string()),
            },
            #[cfg(not(target_env = "gnu"))]
            Self::TokioUring => Some("tokio-uring cannot be compiled with musl".into()),
            #[cfg(target_env = "gnu")]
            Self::TokioUring => tokio_uring::Runtime::new(&tokio_uring::builder())
                .err()
                .map(|error| format!("no tokio-uring runtime here: {error}")),
            Self::Pidfds => pidfds(),
            Self::Program(program) => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let is_there = std::env::split_paths(&path).any(|it| it.join(program).is_file());
                (!is_there).then(|| format!("{program} is missing"))
            }
            Self::Udev => udev(),
            Self::Root => {
                (!rustix::process::geteuid().is_root()).then(|| "this test needs root".into())
            }
            Self::Strace => strace(),
            Self::CountedRings => counted_rings(),
            Self::Sysctl => {
                let asked = ["CI", "SEQPACKET_TEST_SYSCTL", NO_SKIP];
                if !asked.iter().any(|name| std::env::var_os(name).is_some()) {
                    return Some(format!(
                        "{SYSCTL} is the whole machine's: set SEQPACKET_TEST_SYSCTL=1 to have it \
                         changed for a moment"
                    ));
                }
                let same = fs::read(SYSCTL).and_then(|value| fs::write(SYSCTL, value));
                same.err().map(|error| format!("{SYSCTL} cannot be written: {error}"))
            }
        }
    }
}

/// Set in the process that measures whether rings are counted.
pub const MEASURES: &str = "SEQPACKET_MEASURES_RINGS";

/// Why rings cannot be given less memory. Measured by the binary's own `main`, as an ordinary user.
fn counted_rings() -> Option<String> {
    let output = Command::new("/proc/self/exe").env(MEASURES, "1").stdin(Stdio::null()).output();
    let output = output.expect("this binary");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    match &*String::from_utf8_lossy(&output.stdout) {
        "counted" => None,
        _ => Some("this kernel does not count rings against RLIMIT_MEMLOCK".into()),
    }
}

/// Why strace cannot be used.
fn strace() -> Option<String> {
    let arguments = ["-f", "--seccomp-bpf", "-qq", "-e", "trace=none", "-o", "/dev/null", "true"];
    match Command::new("strace").args(arguments).stdin(Stdio::null()).output() {
        Err(error) => Some(format!("strace cannot be run: {error}")),
        Ok(output) if output.status.success() => None,
        Ok(output) => {
            let words = String::from_utf8_lossy(&output.stderr).into_owned();
            Some(format!("strace does not work here: {}", words.trim().replace('\n', ", ")))
        }
    }
}

fn udev() -> Option<String> {
    let mut unshare = Command::new("unshare");
    unshare.args([
        "--map-root-user",
        "--mount",
        "--net",
        "--pid",
        "--fork",
        "udevadm",
        "--version",
    ]);
    let works = unshare.stdin(Stdio::null()).output().is_ok_and(|output| output.status.success());
    (!works).then(|| "udevadm is missing, or no namespaces can be made".into())
}

fn pidfds() -> Option<String> {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let asked = runtime.block_on(async {
        let (socket, _peer) = Options::new().backend(Backend::Epoll).pair().expect("a pair");
        socket.set_pass_pidfd(true).and_then(|()| socket.peer_pidfd())
    });
    let error = asked.err()?;
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    assert!(error.to_string().contains("6.5"), "{error}");
    Some(error.to_string())
}
