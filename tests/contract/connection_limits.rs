//! The limits of `Incoming`: how many connections there are, whose, and which are refused. G4: a limit loses no connection.

use std::os::fd::{FromRawFd, OwnedFd};
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use futures_util::FutureExt;
use rustix::net::SocketAddrUnix;
use rustix::process::Uid;
use rustix::thread::set_thread_res_uid;
use tokio_seqpacket::{SocketAddr, UnixSeqpacket, UnixSeqpacketListener};
use tokio_test::task;

use super::lingering::{assert_in_time, pass};
use crate::harness::messages::recv;
use crate::harness::need::Need;
use crate::harness::peer::{self, Peer};
use crate::harness::waiting::{breathe, soon, starts_waiting, until_in_runtime};
use crate::harness::{Cell, Test, alone};

pub fn tests() -> Vec<Test> {
    let mut tests = tasks![
        at_the_limit_connections_wait_until_one_ends,
        a_split_connection_ends_with_its_last_half,
        a_place_that_another_thread_frees_wakes_the_accept,
        an_incoming_at_its_limit_leaves_connections_to_others,
        a_check_that_panics_frees_the_place,
        a_user_beyond_the_limit_is_refused_and_counted,
        a_peer_that_is_not_authorized_is_not_yielded,
        a_connection_outlives_the_limits_that_count_it,
    ];
    let of_users = tasks![a_user_at_its_limit_holds_up_no_other];
    tests.extend(of_users.into_iter().map(|test| test.needs([Need::Root])));
    // What is closed aside waits in the process.
    tests.extend(alone(tasks![refusing_does_not_wait_for_a_descriptor_that_lingers]));
    tests
}

/// A listener for all users, since it has no file.
fn listen(cell: Cell) -> UnixSeqpacketListener {
    cell.options().bind_addr(&SocketAddr::unnamed(), 64).unwrap()
}

fn connect(listener: &UnixSeqpacketListener) -> Peer {
    let address = listener.local_socket_addr().unwrap();
    let name = address.as_abstract_name().unwrap();
    let socket = peer::socket();
    rustix::net::connect(&socket, &SocketAddrUnix::new_abstract_name(name).unwrap()).unwrap();
    socket.into()
}

fn connect_and_send(listener: &UnixSeqpacketListener, message: &[u8]) -> Peer {
    let client = connect(listener);
    client.send(message);
    client
}

async fn at_the_limit_connections_wait_until_one_ends(cell: Cell) {
    let ends: [fn(UnixSeqpacket); 5] = [
        drop,
        |socket| drop(OwnedFd::from(socket)),
        |socket| drop(socket.try_into_fd().unwrap()),
        |socket| drop(socket.into_split()),
        |socket| {
            let raw_fd = socket.into_raw_fd();
            // SAFETY: `into_raw_fd` has just released this open descriptor.
            #[expect(unsafe_code, reason = "from_raw_fd")]
            drop(unsafe { OwnedFd::from_raw_fd(raw_fd) });
        },
    ];
    let listener = listen(cell);
    let mut incoming = listener.incoming().unwrap().max_connections(2);
    let mut clients = vec![connect(&listener), connect(&listener)];
    let mut sockets =
        vec![soon(incoming.accept()).await.unwrap(), soon(incoming.accept()).await.unwrap()];
    for (n, end) in ends.into_iter().enumerate() {
        clients.push(connect_and_send(&listener, &[n as u8]));
        let mut accept = task::spawn(incoming.accept());
        starts_waiting(&mut accept);
        breathe().await;
        assert!(!accept.is_woken(), "there is no place yet");
        end(sockets.remove(0));
        assert!(accept.is_woken());
        let next = soon(accept).await.unwrap();
        assert_eq!(recv(&next).await, [n as u8]);
        sockets.push(next);
    }
    assert_eq!(incoming.refused(), 0);
}

async fn a_split_connection_ends_with_its_last_half(cell: Cell) {
    let listener = listen(cell);
    let mut incoming = listener.incoming().unwrap().max_connections(1);
    let _clients = [connect(&listener), connect(&listener)];
    let (reader, writer) = soon(incoming.accept()).await.unwrap().into_split();
    let mut accept = task::spawn(incoming.accept());
    starts_waiting(&mut accept);
    drop(reader);
    assert!(!accept.is_woken(), "the other half is there");
    drop(writer);
    assert!(accept.is_woken());
    soon(accept).await.unwrap();
}

async fn a_place_that_another_thread_frees_wakes_the_accept(cell: Cell) {
    let listener = listen(cell);
    let mut incoming = listener.incoming().unwrap().max_connections(1);
    let mut client = connect(&listener);
    let mut socket = soon(incoming.accept()).await.unwrap();
    for _ in 0..200 {
        let next = connect(&listener);
        let ending = std::thread::spawn(move || drop(socket));
        socket = soon(incoming.accept()).await.unwrap();
        ending.join().unwrap();
        client = next;
    }
    drop(client);
}

async fn an_incoming_at_its_limit_leaves_connections_to_others(cell: Cell) {
    let listener = Arc::new(listen(cell));
    let accepted = Arc::new(AtomicUsize::new(0));
    let mut serving = Vec::new();
    // The limited one is polled last, and first.
    for most in [usize::MAX, 1] {
        let (listener, accepted) = (listener.clone(), accepted.clone());
        serving.push(tokio::spawn(async move {
            let mut incoming = listener.incoming().unwrap().max_connections(most);
            let mut sockets = Vec::new();
            loop {
                sockets.push(incoming.accept().await.unwrap());
                accepted.fetch_add(1, Ordering::Relaxed);
            }
        }));
        breathe().await;
    }
    let mut clients = Vec::new();
    for n in 1..=4 {
        clients.push(connect(&listener));
        until_in_runtime("accepted", || accepted.load(Ordering::Relaxed) == n).await;
        breathe().await;
    }
    serving.iter().for_each(|task| task.abort());
}

async fn a_check_that_panics_frees_the_place(cell: Cell) {
    let listener = listen(cell);
    let first = AtomicBool::new(true);
    let mut incoming = listener.incoming().unwrap().max_connections(1).authorize(move |_| {
        if first.swap(false, Ordering::Relaxed) {
            std::panic::resume_unwind(Box::new(()));
        }
        true
    });
    let refused = connect(&listener);
    let welcome = connect_and_send(&listener, b"welcome");
    let panicked = soon(AssertUnwindSafe(incoming.accept()).catch_unwind()).await;
    assert!(panicked.is_err());
    assert!(refused.sees_end());
    let socket = soon(incoming.accept()).await.unwrap();
    assert_eq!(recv(&socket).await, b"welcome");
    drop(welcome);
}

async fn a_user_beyond_the_limit_is_refused_and_counted(cell: Cell) {
    let listener = listen(cell);
    let mut incoming = listener.incoming().unwrap().max_per_user(1);
    let _first = connect(&listener);
    let socket = soon(incoming.accept()).await.unwrap();
    // One of them has sent something, which is never read.
    let refused = [connect(&listener), connect_and_send(&listener, b"unread")];
    let mut accept = task::spawn(incoming.accept());
    starts_waiting(&mut accept);
    for client in &refused {
        soon(client.ended()).await;
    }
    drop(socket);
    let _next = connect_and_send(&listener, b"welcome");
    assert_eq!(recv(&soon(accept).await.unwrap()).await, b"welcome");
    assert_eq!(incoming.refused(), 2);
}

async fn a_peer_that_is_not_authorized_is_not_yielded(cell: Cell) {
    let listener = listen(cell);
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    // A refused peer takes no place: the only one is free for the next.
    let mut incoming = listener.incoming().unwrap().max_connections(1).authorize(move |socket| {
        assert_eq!(socket.peer_cred().unwrap().pid(), Some(std::process::id() as i32));
        let is_odd = count.fetch_add(1, Ordering::Relaxed) % 2 == 1;
        if !is_odd {
            socket.try_send(b"not you").unwrap();
        }
        is_odd
    });
    for n in 0..3_u8 {
        let refused = connect(&listener);
        let _welcome = connect_and_send(&listener, &[n]);
        assert_eq!(recv(&soon(incoming.accept()).await.unwrap()).await, [n]);
        assert_eq!(soon(refused.next()).await.unwrap(), b"not you");
        soon(refused.ended()).await;
    }
    assert_eq!(incoming.refused(), 3);
    assert_eq!(asked.load(Ordering::Relaxed), 6);
}

async fn a_connection_outlives_the_limits_that_count_it(cell: Cell) {
    let listener = listen(cell);
    let mut incoming = listener.incoming().unwrap().max_connections(1).max_per_user(1);
    let client = connect(&listener);
    let socket = soon(incoming.accept()).await.unwrap();
    let mut accept = task::spawn(incoming.accept());
    starts_waiting(&mut accept);
    drop(accept);
    drop(incoming);
    client.send(b"message");
    assert_eq!(recv(&socket).await, b"message");
    // Another counts its own only.
    let _other = connect_and_send(&listener, b"another");
    let mut incoming = listener.incoming().unwrap().max_connections(1).max_per_user(1);
    assert_eq!(recv(&soon(incoming.accept()).await.unwrap()).await, b"another");
    drop(socket);
    soon(client.ended()).await;
}

/// Connects as this user: the ids of a thread are its own.
fn connect_as(user: u32, listener: &Arc<UnixSeqpacketListener>) -> Peer {
    let listener = listener.clone();
    let connecting = std::thread::spawn(move || {
        set_thread_res_uid(None, Uid::from_raw(user), None).unwrap();
        connect_and_send(&listener, &user.to_ne_bytes())
    });
    connecting.join().unwrap()
}

async fn a_user_at_its_limit_holds_up_no_other(cell: Cell) {
    const GREEDY: u32 = 1001;
    let listener = Arc::new(listen(cell));
    let mut incoming = listener.incoming().unwrap().max_connections(4).max_per_user(2);
    let mut sockets = Vec::new();
    let mut clients = Vec::new();
    let user = |socket: &UnixSeqpacket| socket.peer_cred().unwrap().uid();
    for _ in 0..2 {
        clients.push(connect_as(GREEDY, &listener));
        sockets.push(soon(incoming.accept()).await.unwrap());
    }
    // Ahead of the other user in the kernel's queue.
    let refused: Vec<_> = (0..8).map(|_| connect_as(GREEDY, &listener)).collect();
    clients.push(connect_as(1002, &listener));
    sockets.push(soon(incoming.accept()).await.unwrap());
    assert!(sockets.iter().map(user).eq([GREEDY, GREEDY, 1002]));
    assert_eq!(incoming.refused(), 8);
    for client in refused {
        soon(client.ended()).await;
    }
    // The limit is again what counts.
    drop(sockets.remove(0));
    clients.push(connect_as(GREEDY, &listener));
    sockets.push(soon(incoming.accept()).await.unwrap());
    assert_eq!((user(&sockets[2]), incoming.refused()), (GREEDY, 8));
}

async fn refusing_does_not_wait_for_a_descriptor_that_lingers(cell: Cell) {
    let listener = listen(cell);
    let mut readers = Vec::new();
    for by_limit in [false, true] {
        let mut incoming = listener.incoming().unwrap().max_per_user(1);
        if !by_limit {
            incoming = incoming.authorize(|_| false);
        }
        let _first = connect(&listener);
        let _socket = if by_limit { Some(soon(incoming.accept()).await.unwrap()) } else { None };
        let client = connect(&listener);
        readers.push(pass(&client, b"never read"));
        let begin = Instant::now();
        let mut accept = task::spawn(incoming.accept());
        starts_waiting(&mut accept);
        assert_in_time("refusing", begin);
        drop(accept);
        assert_eq!(incoming.refused(), if by_limit { 1 } else { 2 });
    }
}
