//! G5 and G8: the process at the other end, by credentials and pidfd.

use std::os::fd::{AsFd, OwnedFd};

use tokio_seqpacket::ancillary::{AncillaryBuffer, OwnedAncillaryMessage};
use tokio_seqpacket::{SocketAddr, UCred, UnixSeqpacket, UnixSeqpacketListener};
use tokio_test::task;

use crate::harness::descriptors::{file, is_close_on_exec};
use crate::harness::waiting::{arm, soon};
use crate::harness::{Cell, Test, with_pidfds};

pub fn tests() -> Vec<Test> {
    let mut tests = tasks![
        credentials_come_while_they_are_asked_for,
        accepted_sockets_pass_credentials_as_the_listener_does,
        the_peers_groups_are_known,
        a_label_or_the_reason_why_there_is_none,
    ];
    tests.extend(with_pidfds(tasks![
        accepted_sockets_pass_pidfds_as_the_listener_does,
        a_pidfd_comes_with_every_message,
        a_pidfd_comes_beside_all_the_rest,
        a_pidfd_without_capacity_is_closed_and_reported,
        the_peers_process_is_known,
    ]));
    tests
}

/// The process id that a pidfd stands for, from its `fdinfo`.
fn process_of(pidfd: impl AsFd) -> i32 {
    use std::os::fd::AsRawFd;
    let number = pidfd.as_fd().as_raw_fd();
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{number}")).unwrap();
    let line = info.lines().find_map(|line| line.strip_prefix("Pid:")).expect("a pidfd");
    line.trim().parse().unwrap()
}

fn own_id() -> i32 {
    std::process::id() as i32
}

async fn received(socket: &UnixSeqpacket) -> (Vec<u8>, AncillaryBuffer) {
    let (info, bytes, ancillary) =
        soon(socket.recv_owned_with_ancillary(Vec::with_capacity(64), AncillaryBuffer::new()))
            .await;
    assert!(!info.unwrap().ancillary_truncated());
    (bytes, ancillary)
}

async fn credentials_come_while_they_are_asked_for(cell: Cell) {
    let (a, peer) = cell.half();
    for ask in [false, true, false] {
        a.set_pass_credentials(ask).unwrap();
        assert_eq!(a.pass_credentials().unwrap(), ask);
        peer.send(b"message");
        let (_, ancillary) = received(&a).await;
        assert_eq!(ancillary.credentials(), ask.then(UCred::from_current_process));
    }
}

async fn accepted_sockets_pass_credentials_as_the_listener_does(cell: Cell) {
    let listener = cell.options().bind_addr(&SocketAddr::unnamed(), 4).unwrap();
    listener.set_pass_credentials(true).unwrap();
    let (server, ancillary) = accepted_with_a_message(cell, &listener).await;
    assert!(server.pass_credentials().unwrap());
    assert_eq!(ancillary.credentials(), Some(UCred::from_current_process()));
}

async fn accepted_sockets_pass_pidfds_as_the_listener_does(cell: Cell) {
    let listener = cell.options().bind_addr(&SocketAddr::unnamed(), 4).unwrap();
    listener.set_pass_pidfd(true).unwrap();
    let (server, ancillary) = accepted_with_a_message(cell, &listener).await;
    assert!(server.pass_pidfd().unwrap());
    assert_eq!(ancillary.pidfd().map(process_of), Some(own_id()));
}

/// A message that was there before the socket was accepted.
async fn accepted_with_a_message(
    cell: Cell,
    listener: &UnixSeqpacketListener,
) -> (UnixSeqpacket, AncillaryBuffer) {
    let address = listener.local_socket_addr().unwrap();
    let client = soon(cell.options().connect_addr(&address)).await.unwrap();
    soon(client.send(b"early")).await.unwrap();
    let server = soon(listener.accept()).await.unwrap();
    let (bytes, ancillary) = received(&server).await;
    assert_eq!(bytes, b"early");
    (server, ancillary)
}

async fn a_pidfd_comes_with_every_message(cell: Cell) {
    let (a, peer) = cell.half();
    a.set_pass_pidfd(true).unwrap();
    assert!(a.pass_pidfd().unwrap());
    for parked in [false, true] {
        let mut receive =
            task::spawn(a.recv_owned_with_ancillary(Vec::with_capacity(8), AncillaryBuffer::new()));
        if parked {
            arm(&mut receive).await;
        }
        peer.send(b"message");
        let (info, _, mut ancillary) = soon(receive).await;
        assert!(!info.unwrap().ancillary_truncated());
        let pidfd = ancillary.take_pidfd().expect("a pidfd");
        assert!(is_close_on_exec(&pidfd));
        assert_eq!(process_of(&pidfd), own_id());
    }
    // A borrowed buffer has it as another kind of control message.
    peer.send(b"message");
    let (mut bytes, mut control) = ([0; 8], [0; 64]);
    let (_, reader) = soon(a.recv_with_ancillary(&mut bytes, &mut control)).await.unwrap();
    assert!(matches!(
        reader.into_messages().next(),
        Some(OwnedAncillaryMessage::Other(other)) if other.cmsg_type() == 4
    ));
    a.set_pass_pidfd(false).unwrap();
    peer.send(b"message");
    assert!(received(&a).await.1.is_empty());
}

async fn a_pidfd_comes_beside_all_the_rest(cell: Cell) {
    let (a, peer) = cell.half();
    a.set_pass_pidfd(true).unwrap();
    a.set_pass_credentials(true).unwrap();
    let fds: Vec<OwnedFd> = (0..253).map(|_| file("")).collect();
    for parked in [false, true] {
        let mut receive =
            task::spawn(a.recv_owned_with_ancillary(Vec::with_capacity(8), AncillaryBuffer::new()));
        if parked {
            arm(&mut receive).await;
        }
        peer.send_fds(b"message", &fds);
        let (info, _, ancillary) = soon(receive).await;
        assert!(!info.unwrap().ancillary_truncated());
        assert_eq!(ancillary.fds().len(), 253);
        assert_eq!(ancillary.credentials(), Some(UCred::from_current_process()));
        assert_eq!(ancillary.pidfd().map(process_of), Some(own_id()));
    }
}

async fn a_pidfd_without_capacity_is_closed_and_reported(cell: Cell) {
    let (a, peer) = cell.half();
    a.set_pass_pidfd(true).unwrap();
    for parked in [false, true] {
        let mut receive = task::spawn(a.recv_owned(Vec::with_capacity(8)));
        if parked {
            arm(&mut receive).await;
        }
        peer.send(b"message");
        assert!(soon(receive).await.0.unwrap().ancillary_truncated());
    }
}

async fn the_peers_process_is_known(cell: Cell) {
    let listener = cell.options().bind_addr(&SocketAddr::unnamed(), 4).unwrap();
    let address = listener.local_socket_addr().unwrap();
    let client = soon(cell.options().connect_addr(&address)).await.unwrap();
    let server = soon(listener.accept()).await.unwrap();
    for socket in [&client, &server] {
        let pidfd = socket.peer_pidfd().unwrap();
        assert!(is_close_on_exec(&pidfd));
        assert_eq!(process_of(&pidfd), own_id());
    }
}

async fn the_peers_groups_are_known(cell: Cell) {
    let (a, _b) = cell.pair();
    let mut groups = a.peer_groups().unwrap();
    let mut own: Vec<_> =
        rustix::process::getgroups().unwrap().into_iter().map(|group| group.as_raw()).collect();
    groups.sort_unstable();
    own.sort_unstable();
    assert_eq!(groups, own);
}

async fn a_label_or_the_reason_why_there_is_none(cell: Cell) {
    let (a, _b) = cell.pair();
    match a.peer_security_label() {
        Ok(label) => assert!(!label.is_empty() && !label.contains(&0)),
        Err(error) => {
            assert_eq!(error.kind(), std::io::ErrorKind::Unsupported, "{error}");
            assert!(error.to_string().contains("SO_PEERSEC"), "{error}");
        }
    }
}
