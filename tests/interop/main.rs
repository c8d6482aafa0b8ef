//! With other programs as peers, and the tool `seqpacket`. Every body runs on each backend.

#[path = "../harness/mod.rs"]
#[macro_use]
mod harness;

mod activation;
mod daemons;
mod languages;
mod relay;
mod tool;
mod upstream;

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use harness::{AtOnce, Need, Test};
use tokio_seqpacket::{Backend, Options, UnixSeqpacket};

/// One test for each backend.
pub(crate) fn on_both(
    name: &str,
    program: Option<&'static str>,
    body: fn(Backend),
) -> impl Iterator<Item = Test> {
    [Backend::Epoll, Backend::Uring].into_iter().map(move |backend| {
        let uring = (backend == Backend::Uring).then_some(Need::Uring);
        let needs = uring.into_iter().chain(program.map(Need::Program));
        Test::new(format!("{backend}::{name}"), move || body(backend)).needs(needs)
    })
}

/// List bodies, with the program that they need.
macro_rules! with {
    ($program:expr; $($name:ident),* $(,)?) => {
        std::iter::empty()$(.chain($crate::on_both(stringify!($name), $program, $name)))*
            .collect::<Vec<_>>()
    };
}
pub(crate) use with;

fn main() -> ExitCode {
    let tests = [
        activation::tests(),
        tool::tests(),
        relay::tests(),
        daemons::tests(),
        languages::tests(),
        upstream::tests(),
    ];
    harness::main(AtOnce::Many, tests.concat())
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
