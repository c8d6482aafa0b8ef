//! With programs that nobody here wrote, and the tool `seqpacket` as a user has it.
//!
//! Every body runs on each backend. What needs a program that is missing here is listed as ignored,
//! and said loudly on stderr; with `SEQPACKET_TESTS_NO_SKIP=1` it fails instead. No test can hang.

mod languages;
mod tool;
mod upstream;

use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};
use tokio_seqpacket::{Backend, Options, UnixSeqpacket, UringSupport, probe};

/// How long a body may take. They take milliseconds; the first to need Go compiles its standard library.
const PATIENCE: Duration = Duration::from_secs(60);

/// A body, and the program that it needs.
pub(crate) struct Test {
    name: &'static str,
    program: Option<&'static str>,
    body: fn(Backend),
}

/// List bodies, with the program that they need.
macro_rules! with {
    ($program:expr; $($name:ident),* $(,)?) => {
        vec![$($crate::Test { name: stringify!($name), program: $program, body: $name }),*]
    };
}
pub(crate) use with;

fn main() -> ExitCode {
    let args = Arguments::from_args();
    let no_skip = std::env::var_os("SEQPACKET_TESTS_NO_SKIP").is_some_and(|value| value == "1");
    let mut trials = Vec::new();
    let mut skipped = Vec::new();
    for backend in [Backend::Epoll, Backend::Uring] {
        for test in [tool::tests(), languages::tests(), upstream::tests()].into_iter().flatten() {
            let name = format!("{backend}::{}", test.name);
            let refused = match (test.program, backend, probe()) {
                (_, Backend::Uring, UringSupport::Unavailable(why)) => Some(why.to_string()),
                (Some(program), ..) if !exists(program) => Some(format!("{program} is missing")),
                _ => None,
            };
            if let Some(reason) = refused {
                skipped.push(format!("{name}: {reason}"));
                let trial = Trial::test(name, move || Err(reason.into()));
                trials.push(trial.with_ignored_flag(!no_skip));
                continue;
            }
            trials.push(Trial::test(name, move || guarded(move || (test.body)(backend))));
        }
    }
    let conclusion = libtest_mimic::run(&args, trials);
    if !args.list {
        for skipped in skipped {
            eprintln!("*** SKIPPED: {skipped}");
        }
    }
    conclusion.exit_code()
}

fn exists(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn guarded(body: impl FnOnce() + Send + 'static) -> Result<(), Failed> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = tell.send(catch_unwind(AssertUnwindSafe(body)));
    });
    match told.recv_timeout(PATIENCE) {
        Ok(Ok(())) => Ok(()),
        Ok(Err(panic)) => Err(panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(|words| (*words).to_owned()))
            .unwrap_or_default()
            .into()),
        Err(_) => Err(format!("not done after {PATIENCE:?}").into()),
    }
}

/// Run in a runtime.
pub(crate) fn run<T>(body: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(body)
}

/// A path for a socket, in a directory of its own.
pub(crate) struct Place {
    directory: tempfile::TempDir,
    pub(crate) path: PathBuf,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { path: directory.path().join("socket"), directory }
    }

    pub(crate) fn is_empty(&self) -> bool {
        std::fs::read_dir(self.directory.path()).unwrap().next().is_none()
    }

    pub(crate) fn file(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }
}

/// A process that ends with the test, whatever comes of it.
pub(crate) struct Program(Child);

impl Program {
    pub(crate) fn start(command: &mut Command) -> Self {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        Self(command.spawn().expect("the program starts"))
    }

    pub(crate) fn stdin(&mut self) -> std::process::ChildStdin {
        self.0.stdin.take().expect("taken once")
    }

    pub(crate) fn stdout(&mut self) -> std::process::ChildStdout {
        self.0.stdout.take().expect("taken once")
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(id, signal).unwrap();
    }

    /// Close its stdin if that is still open, and wait: exit code, stdout, stderr.
    pub(crate) fn end(mut self) -> (Option<i32>, Vec<u8>, String) {
        drop(self.0.stdin.take());
        let mut stderr = self.0.stderr.take().expect("piped");
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let mut output = Vec::new();
        if let Some(mut stdout) = self.0.stdout.take() {
            stdout.read_to_end(&mut output).unwrap();
        }
        let status = self.0.wait().unwrap();
        (status.code(), output, errors.join().unwrap())
    }

    /// Ended with success; its output.
    #[track_caller]
    pub(crate) fn succeeds(self) -> Vec<u8> {
        let (code, output, errors) = self.end();
        assert_eq!(code, Some(0), "{errors}");
        output
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Wait until a program has made its socket file.
pub(crate) fn until_there(path: &Path) {
    let begin = Instant::now();
    while !path.exists() {
        assert!(begin.elapsed() < Duration::from_secs(10), "no socket at {}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Connect to a program that is about to listen.
pub(crate) async fn connect(backend: Backend, path: &Path) -> UnixSeqpacket {
    let begin = Instant::now();
    loop {
        match Options::new().backend(backend).connect(path).await {
            Ok(socket) => return socket,
            Err(error) => assert!(begin.elapsed() < Duration::from_secs(10), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) async fn recv(socket: &UnixSeqpacket) -> Vec<u8> {
    let (info, bytes) = socket.recv_owned(Vec::with_capacity(100_000)).await;
    assert!(!info.unwrap().truncated());
    bytes
}
