//! Descriptors: files to pass around, traces of them, a process without any to spare, and what this process has open.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::unix::pipe;
use tokio::runtime::Builder;

use super::waiting::{soon, until};

/// A file with this content that exists nowhere else.
pub fn file(content: &str) -> OwnedFd {
    let mut file = File::from(
        rustix::fs::memfd_create("test", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd"),
    );
    file.write_all(content.as_bytes()).expect("room");
    file.into()
}

/// The content of a file.
pub fn content(fd: &OwnedFd) -> String {
    let mut file = File::from(fd.try_clone().expect("a duplicate"));
    let mut text = String::new();
    file.rewind().expect("a file");
    file.read_to_string(&mut text).expect("text");
    text
}

pub fn is_close_on_exec(fd: impl AsFd) -> bool {
    rustix::io::fcntl_getfd(fd).expect("F_GETFD").contains(rustix::io::FdFlags::CLOEXEC)
}

pub fn is_nonblocking(fd: impl AsFd) -> bool {
    rustix::fs::fcntl_getfl(fd).expect("F_GETFL").contains(rustix::fs::OFlags::NONBLOCK)
}

/// Tells when all duplicates of a descriptor are closed, wherever they are: in this process, in a
/// socket's queue, in a ring.
pub struct Trace(pipe::Receiver);

/// A descriptor to be passed around, and its trace.
pub fn traced() -> (Trace, OwnedFd) {
    let (read, write) = rustix::pipe::pipe_with(
        rustix::pipe::PipeFlags::CLOEXEC | rustix::pipe::PipeFlags::NONBLOCK,
    )
    .expect("a pipe");
    (Trace(pipe::Receiver::from_owned_fd(read).expect("a pipe")), write)
}

impl Trace {
    pub fn is_open(&self) -> bool {
        match self.0.try_read(&mut [0]) {
            Ok(0) => false,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => true,
            other => panic!("an unexpected answer: {other:?}"),
        }
    }

    /// Wait until the last duplicate is closed.
    #[track_caller]
    pub fn closed(&self) -> impl Future<Output = ()> {
        soon(async {
            while self.is_open() {
                self.0.readable().await.expect("a pipe");
            }
        })
    }
}

/// Descriptors up to the limit, which is lowered so that there are few. For tests in a process of their own.
pub struct Full {
    filler: Vec<File>,
    before: Rlimit,
}

impl Full {
    pub fn new() -> Self {
        let before = getrlimit(Resource::Nofile);
        let highest = fs::read_dir("/proc/self/fd")
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse::<u64>().unwrap())
            .max()
            .unwrap();
        let low = Rlimit { current: Some(highest + 5), maximum: before.maximum };
        setrlimit(Resource::Nofile, low).unwrap();
        let mut filler = Vec::new();
        while let Ok(file) = File::open("/dev/null") {
            filler.push(file);
        }
        Self { filler, before }
    }

    pub fn free(&mut self, count: usize) {
        for _ in 0..count {
            self.filler.pop().unwrap();
        }
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        setrlimit(Resource::Nofile, self.before).unwrap();
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

/// How many descriptors this process has. At one moment: a list that is read while others are closed and opened has more
/// entries than there ever were descriptors. Linux 6.2 has the number as the size of the directory.
pub fn count() -> usize {
    match fs::metadata("/proc/self/fd").expect("/proc").len() {
        0 => descriptors().len(),
        count => count as usize,
    }
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

/// How many descriptors this process has; tokio keeps some for ever once there was a runtime.
pub fn base_line() -> usize {
    drop(Builder::new_current_thread().enable_all().build().expect("a runtime"));
    drop(Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime"));
    descriptors().len()
}

/// Waits until there are no more descriptors than at first, and no ring.
pub fn all_closed(base: usize) {
    until("all descriptors are closed", || descriptors().len() <= base);
    assert_eq!(rings().len(), 0);
}
