//! G4 and G8: what changes the whole process. Each test has one for itself.
#![allow(unsafe_code, reason = "fork(2) and set_var, in processes of the tests' own")]

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

use tokio_seqpacket::{Backend, Options, UnixSeqpacket, UnixSeqpacketListener};
use tokio_test::task;

use crate::harness::call_variants::{self, RecvBy, Room, SendBy};
use crate::harness::descriptors::{Full, content, file, is_close_on_exec};
use crate::harness::messages::recv;
use crate::harness::peer::Peer;
use crate::harness::syscalls::errno;
use crate::harness::waiting::{arm, soon, starts_waiting};
use crate::harness::{Cell, Flavor, Test, alone, only};

pub fn tests() -> Vec<Test> {
    alone(
        [
            tasks![
                a_message_with_descriptors_beyond_the_limit_is_delivered_and_says_so,
                an_accept_without_free_descriptors_is_an_error_and_loses_no_connection,
                making_sockets_without_free_descriptors_is_an_error,
                everything_is_close_on_exec,
                an_executed_child_keeps_no_socket_alive,
            ],
            only(
                &[Flavor::CurrentThread],
                blocking![
                    a_forked_child_disturbs_nothing,
                    the_environment_chooses_the_backend,
                    nonsense_in_the_environment_is_an_error,
                ],
            ),
        ]
        .concat(),
    )
}

async fn a_message_with_descriptors_beyond_the_limit_is_delivered_and_says_so(cell: Cell) {
    let (a, peer) = cell.half();
    let fds = [file("one"), file("two"), file("three")];
    // Whatever is made with first use, is made.
    for way in RecvBy::ALL {
        let mut receive = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
        arm(&mut receive).await;
        peer.send_fds(b"message", &fds);
        soon(receive).await.unwrap();
    }
    for way in RecvBy::ALL {
        for waiting in [false, true] {
            for free in [0, 1] {
                let mut receive = task::spawn(call_variants::recv(way, &a, Room::AMPLE));
                if waiting {
                    arm(&mut receive).await;
                }
                peer.send_fds(b"message", &fds);
                let mut full = Full::new();
                full.free(free);
                let got = soon(receive).await;
                drop(full);
                let got = got.unwrap_or_else(|error| panic!("{way:?} {waiting} {free}: {error}"));
                assert_eq!(got.bytes, b"message", "{way:?}");
                if way.carries_fds() {
                    // A ring may have received it before there were no free descriptors any more.
                    if got.fds.len() < 3 {
                        assert_eq!(got.control_truncated, Some(true), "{way:?}");
                        assert!(got.fds.len() <= free, "{way:?}");
                    } else {
                        assert_eq!(got.control_truncated, Some(false), "{way:?}");
                        assert!(waiting, "{way:?}");
                    }
                }
                peer.send_fds(b"next", &fds);
                let got = soon(call_variants::recv(RecvBy::OwnedAncillary, &a, Room::AMPLE))
                    .await
                    .unwrap();
                assert_eq!((&got.bytes[..], got.fds.len()), (&b"next"[..], 3));
                assert_eq!(content(&got.fds[2]), "three");
            }
        }
    }
}

async fn an_accept_without_free_descriptors_is_an_error_and_loses_no_connection(cell: Cell) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let listener = cell.bind(&path);
    let _first = Peer::connect(&path);
    soon(listener.accept()).await.unwrap();
    for waiting in [false, true] {
        for poll in [false, true] {
            let client = rustix::net::socket_with(
                rustix::net::AddressFamily::UNIX,
                rustix::net::SocketType::SEQPACKET,
                rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
                None,
            )
            .unwrap();
            let mut accept = task::spawn(async {
                if poll {
                    std::future::poll_fn(|cx| listener.poll_accept(cx)).await
                } else {
                    listener.accept().await
                }
            });
            if waiting {
                arm(&mut accept).await;
            }
            let mut full = Full::new();
            let address = rustix::net::SocketAddrUnix::new(&path).unwrap();
            rustix::net::connect(&client, &address).unwrap();
            let client = Peer::from(client);
            client.send(b"message");
            let error = soon(accept).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            let error = soon(listener.accept()).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            full.free(4);
            assert_eq!(recv(&soon(listener.accept()).await.unwrap()).await, b"message");
        }
    }
}

async fn making_sockets_without_free_descriptors_is_an_error(cell: Cell) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let there = directory.path().join("there");
    let listener = cell.bind(&there);
    {
        let mut full = Full::new();
        for free in 0..3 {
            let errors = [
                (free < 2).then(|| cell.options().pair().unwrap_err()),
                (free < 1).then(|| cell.options().bind(&path, 1).unwrap_err()),
            ];
            for error in errors.into_iter().flatten() {
                assert_eq!(errno(&error), Some(libc::EMFILE), "{error}");
            }
            if free < 1 {
                let error = soon(cell.options().connect(&there)).await.unwrap_err();
                assert_eq!(errno(&error), Some(libc::EMFILE), "{error}");
            }
            full.free(1);
        }
    }
    assert!(!path.exists(), "a file is left");
    let (a, b) = cell.pair();
    soon(a.send(b"message")).await.unwrap();
    assert_eq!(recv(&b).await, b"message");
    let client = cell.connect(&there).await;
    soon(listener.accept()).await.unwrap();
    drop(client);
}

/// Everything in use that opens descriptors.
async fn busy(
    cell: Cell,
    directory: &tempfile::TempDir,
) -> (UnixSeqpacketListener, UnixSeqpacket, Peer) {
    let path = directory.path().join("socket");
    let listener = cell.bind(&path);
    let client = Peer::connect(&path);
    let socket = soon(listener.accept()).await.unwrap();
    let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &socket, Room::AMPLE));
    arm(&mut receive).await;
    client.send(b"message");
    soon(receive).await.unwrap();
    socket.as_async_fd().writable().await.unwrap().retain_ready();
    (listener, socket, client)
}

async fn everything_is_close_on_exec(cell: Cell) {
    let directory = tempfile::tempdir().unwrap();
    let busy = busy(cell, &directory).await;
    let (a, b) = cell.pair();
    call_variants::send(SendBy::Ancillary, &a, b"message", &[file("passed")]).await.unwrap();
    let got = call_variants::recv(RecvBy::VectoredAncillary, &b, Room::AMPLE).await.unwrap();
    let mut seen = 0;
    for entry in std::fs::read_dir("/proc/self/fd").unwrap() {
        let number: i32 = entry.unwrap().file_name().to_str().unwrap().parse().unwrap();
        // SAFETY: open until the end of this loop, but for the directory's own, which is, too.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        if !crate::INHERITED.get().expect("set by main").contains(&number) {
            let target = std::fs::read_link(format!("/proc/self/fd/{number}")).unwrap();
            assert!(is_close_on_exec(fd), "{number} is {}", target.display());
            seen += 1;
        }
    }
    assert!(seen > 6);
    drop((busy, got));
}

async fn an_executed_child_keeps_no_socket_alive(cell: Cell) {
    let directory = tempfile::tempdir().unwrap();
    let (listener, socket, client) = busy(cell, &directory).await;
    let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &socket, Room::AMPLE));
    arm(&mut receive).await;
    let mut child =
        Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat(1)");
    drop(receive);
    drop(socket);
    drop(listener);
    soon(client.ended()).await;
    assert!(child.try_wait().unwrap().is_none());
    drop(child.stdin.take());
    child.wait().unwrap();
}

fn a_forked_child_disturbs_nothing(cell: Cell) {
    let runtime = cell.runtime();
    let (a, peer) = runtime.block_on(async { cell.half() });
    let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE));
    runtime.block_on(arm(&mut receive));
    let (end, end_of_parent) = rustix::pipe::pipe().unwrap();
    // SAFETY: the child makes system calls only, and leaves by _exit(2).
    let child = unsafe { libc::fork() };
    if child == 0 {
        drop(end_of_parent);
        let _ = File::from(end).read(&mut [0]);
        // SAFETY: always safe.
        unsafe { libc::_exit(0) }
    }
    assert!(child > 0);
    drop(end);
    for n in 0..20u8 {
        peer.send(&[n]);
        assert_eq!(runtime.block_on(soon(&mut receive)).unwrap().bytes, [n]);
        runtime.block_on(async {
            soon(a.send(b"answer")).await.unwrap();
            assert_eq!(peer.recv(), b"answer");
            receive = task::spawn(call_variants::recv(
                RecvBy::QUEUED[usize::from(n % 8)],
                &a,
                Room::AMPLE,
            ));
            arm(&mut receive).await;
        });
    }
    drop(receive);
    drop(a);
    drop(runtime);
    // The child has duplicates, until it ends.
    drop(end_of_parent);
    let child = rustix::process::Pid::from_raw(child).unwrap();
    let (_, status) = rustix::process::waitpid(Some(child), rustix::process::WaitOptions::empty())
        .unwrap()
        .unwrap();
    assert_eq!(status.exit_status(), Some(0));
    ordinary().block_on(async { soon(peer.ended()).await });
}

fn ordinary() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

const VARIABLE: &str = "TOKIO_SEQPACKET_BACKEND";

fn the_environment_chooses_the_backend(cell: Cell) {
    let word = if cell.backend == Backend::Uring { "uring" } else { "epoll" };
    // SAFETY: no other thread of this process reads or writes the environment now.
    unsafe { std::env::set_var(VARIABLE, word) };
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    cell.runtime().block_on(async {
        let (a, b) = UnixSeqpacket::pair().unwrap();
        let listener = UnixSeqpacketListener::bind(&path).unwrap();
        let client = UnixSeqpacket::connect(&path).await.unwrap();
        let server = soon(listener.accept()).await.unwrap();
        let taken = UnixSeqpacket::try_from(OwnedFd::from(client)).unwrap();
        for socket in [&a, &b, &server, &taken] {
            assert_eq!(socket.backend(), cell.backend);
        }
        assert_eq!(listener.backend(), cell.backend);
        // The program may decide otherwise.
        let (epoll, _) = Options::new().backend(Backend::Epoll).pair().unwrap();
        assert_eq!(epoll.backend(), Backend::Epoll);
    });
}

fn nonsense_in_the_environment_is_an_error(cell: Cell) {
    // SAFETY: no other thread of this process reads or writes the environment now.
    unsafe { std::env::set_var(VARIABLE, "kqueue") };
    let runtime = cell.runtime();
    let _entered = runtime.enter();
    let error = UnixSeqpacket::pair().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(
        error.to_string().contains(VARIABLE) && error.to_string().contains("kqueue"),
        "{error}"
    );
    let mut connect = task::spawn(UnixSeqpacket::connect("/nowhere"));
    assert!(matches!(connect.poll(), std::task::Poll::Ready(Err(_))));
    let (a, _b) = cell.pair();
    assert_eq!(a.backend(), cell.backend);
    let mut receive = task::spawn(call_variants::recv(RecvBy::Plain, &a, Room::AMPLE));
    starts_waiting(&mut receive);
    assert!(is_close_on_exec(a.as_fd()));
}
