//! Runs every test in a process of its own, one after the other: what a test does to limits, filters,
//! descriptors or the number of rings ends with it, and one that hangs is killed and named.
//!
//! A test says what it needs. Where that is missing it is ignored, loudly and with the reason, or
//! fails if `SEQPACKET_TESTS_NO_SKIP=1`.

#![allow(dead_code, reason = "each test binary uses its own part")]

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{OnceLock, mpsc};
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use tokio_seqpacket::UringSupport;

/// How long a test may take. They take milliseconds, on a quiet machine; some seconds where errors are
/// injected one by one.
const PATIENCE: Duration =
    Duration::from_secs(if option_env!("TESTS_ARE_SLOW").is_some() { 240 } else { 60 });
/// How much longer all of it may take, and does, with `SEQPACKET_TESTS_LONG=1`.
const LONGER: u32 = 10;

/// Set in the process of a test: its name.
const NAME: &str = "SEQPACKET_TRIAL";
const NO_SKIP: &str = "SEQPACKET_TESTS_NO_SKIP";

/// What a test cannot do without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Uring,
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
    fn missing(self) -> Option<String> {
        match self {
            Self::Uring => match tokio_seqpacket::probe() {
                UringSupport::Available { .. } => None,
                unavailable => Some(unavailable.to_string()),
            },
            Self::Root => {
                (!rustix::process::geteuid().is_root()).then(|| "this test needs root".into())
            }
            Self::Strace => {
                static MISSING: OnceLock<Option<String>> = OnceLock::new();
                MISSING.get_or_init(strace).clone()
            }
            Self::CountedRings => {
                static MISSING: OnceLock<Option<String>> = OnceLock::new();
                MISSING.get_or_init(counted_rings).clone()
            }
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

/// A test, named after the rule it shows.
pub struct Test {
    pub name: String,
    pub needs: &'static [Need],
    pub body: Box<dyn Fn()>,
}

/// List tests that need the same.
#[macro_export]
macro_rules! tests {
    ($needs:expr; $($name:ident),* $(,)?) => {
        vec![$($crate::runner::Test {
            name: stringify!($name).to_owned(),
            needs: $needs,
            body: Box::new($name),
        }),*]
    };
}

/// What `main` does.
pub fn main(tests: Vec<Test>) -> ExitCode {
    if let Ok(name) = std::env::var(NAME) {
        let test = tests.iter().find(|test| test.name == name).expect("a test of this name");
        (test.body)();
        return ExitCode::SUCCESS;
    }
    let mut args = Arguments::from_args();
    let nocapture = args.nocapture;
    // They share processors and limits.
    args.test_threads = Some(1);
    let no_skip = std::env::var_os(NO_SKIP).is_some_and(|value| value == "1");
    let mut skipped = BTreeMap::<String, Vec<String>>::new();
    let mut trials = Vec::new();
    for Test { name, needs, .. } in tests {
        if let Some(reason) = needs.iter().find_map(|need| need.missing()) {
            let words = format!("skipped: {reason}");
            skipped.entry(words.clone()).or_default().push(name.clone());
            let trial = Trial::test(name, move || Err(words.into()));
            trials.push(trial.with_kind("skipped").with_ignored_flag(!no_skip));
        } else {
            trials.push(Trial::test(name.clone(), move || in_child(&name, nocapture)));
        }
    }
    let conclusion = libtest_mimic::run(&args, trials);
    if !args.list {
        for (reason, names) in &skipped {
            eprintln!("\n*** {} TESTS {reason}\n    {}\n", names.len(), names.join(" "));
        }
    }
    conclusion.exit_code()
}

/// Whether tests are to take their time.
pub fn is_long() -> bool {
    std::env::var_os("SEQPACKET_TESTS_LONG").is_some_and(|value| value == "1")
}

fn in_child(name: &str, nocapture: bool) -> Result<(), Failed> {
    let child = Command::new("/proc/self/exe")
        .env(NAME, name)
        .env_remove("TOKIO_SEQPACKET_BACKEND")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let id = child.id();
    let patience = if is_long() { LONGER * PATIENCE } else { PATIENCE };
    let (tell, told) = mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let _ = tell.send(child.wait_with_output());
    });
    let output = match told.recv_timeout(patience) {
        Ok(output) => output?,
        Err(_) => {
            let id = rustix::process::Pid::from_raw(id as i32).expect("a process");
            // Not yet waited for, so the number is still this child's.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
            let output = told.recv()??;
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("{name} hangs: not done after {patience:?}\n{text}").into());
        }
    };
    let _ = waiting.join();
    let text = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        if nocapture {
            eprint!("{text}");
        }
        return Ok(());
    }
    Err(format!("{}:\n{text}", output.status).into())
}

/// Wait for something that tells nobody. Panics with `what` if it does not come.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE / 4, "waited for nothing: {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The links in `/proc/self/fd`.
pub fn descriptors() -> Vec<(u32, String)> {
    let links = fs::read_dir("/proc/self/fd").expect("/proc").filter_map(|entry| {
        let entry = entry.ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        let link = fs::read_link(entry.path()).ok()?.to_string_lossy().into_owned();
        // The directory that is being read is no descriptor of the test's.
        (!link.ends_with("/fd")).then_some((number, link))
    });
    links.collect()
}

/// The descriptors of this process's rings.
pub fn rings() -> Vec<u32> {
    let rings = descriptors().into_iter().filter(|(_, link)| link == "anon_inode:[io_uring]");
    rings.map(|(number, _)| number).collect()
}

/// How many operations this process has handed to its rings so far.
pub fn submitted() -> u64 {
    let field = |number: &u32| {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{number}")).ok()?;
        let line = info.lines().find_map(|line| line.strip_prefix("CachedSqHead:"))?;
        line.trim().parse::<u64>().ok()
    };
    rings().iter().filter_map(field).sum()
}

/// Whether a thread of this process sleeps in the kernel.
pub fn sleeps(thread: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/self/task/{thread}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with('S'))
}
