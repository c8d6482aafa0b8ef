//! G1 and G2 where the descriptor of a connection leaves its socket, as for a restart: what the library has received ahead of
//! its receives is taken first, the kernel's queue goes along.

use std::io::ErrorKind;
use std::os::fd::OwnedFd;

use tokio_seqpacket::{Activation, MessagesOptions, Options, SocketAddr, UnixSeqpacket};
use tokio_test::task;

use crate::harness::messages::recv;
use crate::harness::waiting::soon;
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        a_handover_loses_nothing_that_a_dropped_receive_has_taken,
        a_handover_loses_nothing_that_a_stream_has_taken,
        a_handover_loses_nothing_to_a_forgotten_receive,
        without_activation_a_listener_is_bound_with_its_options,
    ]
}

/// Takes what is left in the library, and then the descriptor.
async fn hand_over(mut socket: UnixSeqpacket, got: &mut Vec<u8>) -> OwnedFd {
    loop {
        match socket.try_into_fd() {
            Ok(fd) => return fd,
            Err(left) => socket = left,
        }
        let mut message = [0; 8];
        match socket.try_recv(&mut message) {
            Ok(len) => got.extend(&message[..len]),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn a_handover_loses_nothing_that_a_dropped_receive_has_taken(cell: Cell) {
    let (mut socket, peer) = cell.half();
    let mut got = Vec::new();
    for round in 0..100_u8 {
        let mut buffer = [0; 8];
        let mut receive = task::spawn(socket.recv(&mut buffer));
        let mut pending = receive.poll().is_pending();
        peer.send(&[round]);
        for _ in 0..round % 4 {
            if !pending {
                break;
            }
            tokio::task::yield_now().await;
            // Not polled in every round: a message that has come stays unclaimed.
            if round % 3 == 0 {
                pending = receive.poll().is_pending();
            }
        }
        drop(receive);
        if !pending {
            got.push(buffer[0]);
        }
        let fd = soon(hand_over(socket, &mut got)).await;
        socket = cell.options().socket_from_fd(fd).unwrap();
        if round % 5 == 4 {
            while got.len() <= round.into() {
                got.extend(recv(&socket).await);
            }
        }
    }
    assert_eq!(got, (0..100).collect::<Vec<_>>());
}

async fn a_handover_loses_nothing_that_a_stream_has_taken(cell: Cell) {
    let (mut socket, peer) = cell.half();
    (0..40).for_each(|number| peer.send(&[number]));
    let mut got = Vec::new();
    while got.len() < 40 {
        let mut messages = socket.messages(MessagesOptions::new().buffers(8)).unwrap();
        got.extend_from_slice(&soon(messages.next()).await.unwrap().unwrap());
        drop(messages);
        let fd = soon(hand_over(socket, &mut got)).await;
        socket = cell.options().socket_from_fd(fd).unwrap();
    }
    assert_eq!(got, (0..40).collect::<Vec<_>>());
}

/// Its attempt is queued, and a driver can submit it at any moment.
async fn a_handover_loses_nothing_to_a_forgotten_receive(cell: Cell) {
    let (sockets, handover) = std::sync::mpsc::channel::<UnixSeqpacket>();
    let (done, mut results) = tokio::sync::mpsc::unbounded_channel();
    let thread = std::thread::spawn(move || {
        for socket in handover {
            done.send(socket.try_into_fd()).unwrap();
        }
    });
    let handed_over = tokio::spawn(async move {
        for round in 0..2000_u32 {
            let (socket, peer) = cell.half();
            let buffer: &mut [u8] = Box::leak(Box::new([0; 8]));
            let mut receive = task::spawn(socket.recv(buffer));
            assert!(receive.poll().is_pending());
            std::mem::forget(receive);
            peer.send(&[7]);
            sockets.send(socket).unwrap();
            let mut got = Vec::new();
            let fd = match results.recv().await.unwrap() {
                Ok(fd) => fd,
                Err(socket) => hand_over(socket, &mut got).await,
            };
            let socket = cell.options().socket_from_fd(fd).unwrap();
            got.extend(vec![0; socket.try_recv(&mut [0; 8]).unwrap_or(0)]);
            assert_eq!(got.len(), 1, "round {round}");
        }
    });
    soon(handed_over).await.unwrap();
    thread.join().unwrap();
}

async fn without_activation_a_listener_is_bound_with_its_options(cell: Cell) {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    let nothing = None::<&mut Activation>;
    let options: Options = cell.options().mode(0o600).unlink_on_drop(true);
    let listener = options.activated_or_bind(nothing, "control", &path, 8).unwrap();
    assert_eq!(listener.backend(), cell.backend);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let address = listener.local_socket_addr().unwrap();
    assert_eq!(address, SocketAddr::from_path(&path).unwrap());
    drop(listener);
    assert!(!path.exists());
}
