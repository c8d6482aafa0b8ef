//! Runs the tests of every binary: in this process side by side, or each in a process of its own.
//!
//! A test says what it needs. Where that is missing the test is ignored, with the reason on stderr; with
//! `SEQPACKET_TESTS_NO_SKIP=1` it fails instead. No test can hang: one that takes too long fails under its own name, and
//! its process is killed if it has one.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use libtest_mimic::{Arguments, Failed, Trial};

use super::matrix::Cell;
use super::need::{NO_SKIP, Need};

/// How long a test may take. Most take milliseconds; some take seconds, where errors are injected one by one or Go compiles
/// its standard library.
pub const PATIENCE: Duration =
    Duration::from_secs(if option_env!("TESTS_ARE_SLOW").is_some() { 240 } else { 60 });
/// How much longer a test may take with `SEQPACKET_TESTS_LONG=1`.
const LONGER: u32 = 10;

/// Set in the process of a test that has one for itself: the name of the test.
const NAME: &str = "SEQPACKET_TEST";

/// A test, named after the rule it shows and where it runs.
#[derive(Clone)]
pub struct Test {
    pub name: String,
    pub needs: Vec<Need>,
    /// It has a process of its own: what it does to limits, filters, descriptors or the number of rings ends with it.
    pub alone: bool,
    pub cell: Option<Cell>,
    pub body: Arc<dyn Fn() + Send + Sync>,
}

impl Test {
    pub fn new(name: impl Into<String>, body: impl Fn() + Send + Sync + 'static) -> Self {
        let (needs, alone, cell) = (Vec::new(), false, None);
        Self { name: name.into(), needs, alone, cell, body: Arc::new(body) }
    }

    pub fn needs(mut self, needs: impl IntoIterator<Item = Need>) -> Self {
        self.needs.extend(needs);
        self
    }

    pub fn alone(self) -> Self {
        Self { alone: true, ..self }
    }

    fn run(&self, nocapture: bool) -> Result<(), Failed> {
        if self.alone { in_child(&self.name, nocapture) } else { guarded(self.body.clone()) }
    }
}

/// List tests that need the same, and have a process each.
macro_rules! tests {
    ($needs:expr; $($name:ident),* $(,)?) => {
        vec![$($crate::harness::Test::new(stringify!($name), $name).needs($needs).alone()),*]
    };
}

/// Give each test a process for itself.
pub fn alone(tests: Vec<Test>) -> Vec<Test> {
    tests.into_iter().map(Test::alone).collect()
}

/// How many tests run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AtOnce {
    /// They share processors, limits of the user, or settings of the machine.
    One,
    /// Most of them wait most of the time.
    Many,
}

/// What `main` does.
pub fn main(at_once: AtOnce, mut tests: Vec<Test>) -> ExitCode {
    if let Ok(name) = std::env::var(NAME) {
        let test = tests.iter().find(|test| test.name == name).expect("a test of this name");
        (test.body)();
        return ExitCode::SUCCESS;
    }
    // Cell by cell, so that the bodies that take long do not all run at once.
    tests.sort_by_cached_key(|test| test.cell.map(Cell::name));
    let names: BTreeSet<_> = tests.iter().map(|test| &test.name).collect();
    assert_eq!(names.len(), tests.len(), "two tests with one name");

    let mut args = Arguments::from_args();
    let nocapture = args.nocapture;
    match at_once {
        AtOnce::One => args.test_threads = Some(1),
        AtOnce::Many => {
            let cores = std::thread::available_parallelism().map_or(2, usize::from);
            args.test_threads.get_or_insert(2 * cores);
        }
    }
    let no_skip = std::env::var_os(NO_SKIP).is_some_and(|value| value == "1");
    let mut missing = BTreeMap::<Need, Option<String>>::new();
    let mut skipped = BTreeMap::<String, Vec<String>>::new();
    let mut trials = Vec::new();
    for test in tests {
        let name = test.name.clone();
        let mut reasons = test
            .needs
            .iter()
            .filter_map(|need| missing.entry(*need).or_insert_with(|| need.missing()).clone());
        if let Some(reason) = reasons.next() {
            let reason = format!("skipped: {reason}");
            skipped.entry(reason.clone()).or_default().push(name.clone());
            let trial = Trial::test(name, move || Err(reason.into()));
            trials.push(trial.with_kind("skipped").with_ignored_flag(!no_skip));
        } else {
            trials.push(Trial::test(name, move || test.run(nocapture)));
        }
    }
    let conclusion = libtest_mimic::run(&args, trials);
    if !args.list {
        for (reason, names) in &skipped {
            eprintln!("\n*** {} TESTS {reason}", names.len());
            // A backend that is missing is named by its reason alone.
            if names.len() <= 20 {
                eprintln!("    {}", names.join(" "));
            }
        }
    }
    conclusion.exit_code()
}

/// Whether tests may take long.
pub fn is_long() -> bool {
    std::env::var_os("SEQPACKET_TESTS_LONG").is_some_and(|value| value == "1")
}

fn patience() -> Duration {
    if is_long() { LONGER * PATIENCE } else { PATIENCE }
}

/// Run a body on a thread of its own. A panic is a failure, and so is a body that does not end.
fn guarded(body: Arc<dyn Fn() + Send + Sync>) -> Result<(), Failed> {
    let (tx, rx) = mpsc::channel();
    let name = std::thread::current().name().unwrap_or("test").to_owned();
    let thread = std::thread::Builder::new()
        .name(name)
        .spawn(move || {
            let _ = tx.send(catch_unwind(AssertUnwindSafe(|| body())));
        })
        .expect("a thread");
    match rx.recv_timeout(patience()) {
        Ok(result) => {
            let _ = thread.join();
            result.map_err(|panic| words(&*panic).into())
        }
        Err(_) => Err(format!("hangs: not done after {:?}", patience()).into()),
    }
}

fn words(panic: &(dyn Any + Send)) -> String {
    match (panic.downcast_ref::<&str>(), panic.downcast_ref::<String>()) {
        (Some(words), _) => (*words).to_owned(),
        (_, Some(words)) => words.clone(),
        _ => "a panic without words".to_owned(),
    }
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
    let (tx, rx) = mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let _ = tx.send(child.wait_with_output());
    });
    let output = match rx.recv_timeout(patience()) {
        Ok(output) => output?,
        Err(_) => {
            let id = rustix::process::Pid::from_raw(id as i32).expect("a process");
            // Not yet waited for, so the number is still this child's.
            let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
            let output = rx.recv()??;
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            return Err(format!("hangs: not done after {:?}\n{text}", patience()).into());
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
