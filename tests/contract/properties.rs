//! G6 and G8: addresses, sizes, the end of a stream, and descriptors that come and go.

use std::io::ErrorKind;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net as std_net;

use tokio_seqpacket::{Options, SocketAddr, UnixSeqpacket, UnixSeqpacketListener};
use tokio_test::task;

use crate::harness::descriptors::is_nonblocking;
use crate::harness::messages::recv;
use crate::harness::peer::{self, Peer};
use crate::harness::waiting::{arm, breathe, soon};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    [
        tasks![
            a_bound_client_is_known_by_its_path,
            the_kernel_names_a_client_and_a_listener,
            a_client_whose_connecting_fails_leaves_no_file,
            an_unnamed_address_has_no_name,
            connect_blocking_waits_for_the_backlog,
            the_largest_message_is_reported,
            the_end_of_the_stream_is_distinguished_from_an_empty_message,
            a_descriptor_is_not_given_away_while_a_message_lies_here,
            sockets_come_and_go_in_stds_clothes,
        ],
        blocking![connect_blocking_wants_a_runtime],
    ]
    .concat()
}

async fn a_bound_client_is_known_by_its_path(cell: Cell) {
    let directory = tempfile::tempdir().unwrap();
    let (server_path, client_path) = (directory.path().join("s"), directory.path().join("c"));
    let listener = cell.bind(&server_path);
    let options = cell.options().local_addr(SocketAddr::from_path(&client_path).unwrap());
    let client = soon(options.connect(&server_path)).await.unwrap();
    let server = soon(listener.accept()).await.unwrap();
    assert_eq!(client.local_addr().unwrap().as_pathname(), Some(&*client_path));
    assert_eq!(server.peer_addr().unwrap().as_pathname(), Some(&*client_path));
    assert_eq!(client.peer_addr().unwrap().as_pathname(), Some(&*server_path));
    assert_eq!(server.local_addr().unwrap().as_pathname(), Some(&*server_path));
    let again = soon(options.connect(&server_path)).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::AddrInUse);
    assert!(client_path.exists(), "another socket's file");
    drop(client);
    assert!(client_path.exists());
}

async fn the_kernel_names_a_client_and_a_listener(cell: Cell) {
    let listener = cell.options().bind_addr(&SocketAddr::unnamed(), 4).unwrap();
    let address = listener.local_socket_addr().unwrap();
    assert_eq!(address.as_abstract_name().map(<[u8]>::len), Some(5), "{address:?}");
    let plain = soon(cell.options().connect_addr(&address)).await.unwrap();
    assert!(plain.local_addr().unwrap().is_unnamed());
    let options = cell.options().local_addr(SocketAddr::unnamed());
    let named = soon(options.connect_addr(&address)).await.unwrap();
    let name = named.local_addr().unwrap();
    assert!(name.as_abstract_name().is_some() && name != address);
    assert!(soon(listener.accept()).await.unwrap().peer_addr().unwrap().is_unnamed());
    assert_eq!(soon(listener.accept()).await.unwrap().peer_addr().unwrap(), name);
    let std = std_net::SocketAddr::try_from(name.clone()).unwrap();
    assert_eq!(SocketAddr::from(std), name);
}

async fn a_client_whose_connecting_fails_leaves_no_file(cell: Cell) {
    let directory = tempfile::tempdir().unwrap();
    let client_path = directory.path().join("c");
    let options = cell.options().local_addr(SocketAddr::from_path(&client_path).unwrap());
    let missing = directory.path().join("missing");
    let error = soon(options.connect(&missing)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(!client_path.exists());
    // Nor does a client that gives up waiting.
    let path = directory.path().join("s");
    let _listener = cell.options().bind(&path, 0).unwrap();
    let _first = cell.connect(&path).await;
    let mut waiting = task::spawn(options.connect(&path));
    arm(&mut waiting).await;
    assert!(client_path.exists());
    drop(waiting);
    assert!(!client_path.exists());
}

async fn an_unnamed_address_has_no_name(cell: Cell) {
    let error = soon(cell.options().connect_addr(&SocketAddr::unnamed())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

async fn connect_blocking_waits_for_the_backlog(cell: Cell) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let listener = cell.options().bind(&path, 0).unwrap();
    let first = cell.options().connect_blocking(&path).unwrap();
    assert!(is_nonblocking(&first));
    let second = tokio::task::spawn_blocking(move || {
        let socket = cell.options().connect_blocking(&path)?;
        assert!(is_nonblocking(&socket));
        Ok::<_, std::io::Error>(socket)
    });
    breathe().await;
    assert!(!second.is_finished());
    let accepted = soon(listener.accept()).await.unwrap();
    let second = soon(second).await.unwrap().unwrap();
    assert_eq!(second.backend(), cell.backend);
    soon(first.send(b"first")).await.unwrap();
    assert_eq!(recv(&accepted).await, b"first");
    soon(second.send(b"second")).await.unwrap();
    assert_eq!(recv(&soon(listener.accept()).await.unwrap()).await, b"second");
}

fn connect_blocking_wants_a_runtime(cell: Cell) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let runtime = cell.runtime();
    let _listener = runtime.block_on(async { cell.bind(&path) });
    let error = cell.options().connect_blocking(&path).unwrap_err();
    assert!(error.to_string().contains("no tokio runtime"), "{error}");
    let _inside = runtime.enter();
    cell.options().connect_blocking(&path).unwrap();
}

async fn the_largest_message_is_reported(cell: Cell) {
    let (a, b) = cell.pair();
    for size in [1, 10_000, 100_000] {
        a.set_send_buffer_size(size).unwrap();
        let largest = a.max_message_size().unwrap();
        assert_eq!(largest, a.send_buffer_size().unwrap() - 32);
        soon(a.send(&vec![1; largest])).await.unwrap();
        let (received, _) = soon(b.recv_owned(Vec::with_capacity(largest))).await;
        assert_eq!(received.unwrap().bytes_read(), largest);
        let error = soon(a.send(&vec![1; largest + 1])).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(&largest.to_string()), "{error}");
    }
    b.set_recv_buffer_size(50_000).unwrap();
    assert_eq!(b.recv_buffer_size().unwrap(), 100_000);
}

async fn the_end_of_the_stream_is_distinguished_from_an_empty_message(cell: Cell) {
    for credentials in [false, true] {
        for parked in [false, true] {
            let (a, peer) = cell.half();
            a.set_pass_credentials(credentials).unwrap();
            let mut receive = task::spawn(a.recv_owned(Vec::with_capacity(8)));
            if parked {
                arm(&mut receive).await;
            }
            peer.send(b"");
            let info = soon(receive).await.0.unwrap();
            assert_eq!((info.message_len(), info.end_of_stream()), (0, Some(false)));
            peer.send(b"");
            drop(peer);
            // The last message is empty, and the peer is gone.
            let info = soon(a.recv_owned(Vec::with_capacity(8))).await.0.unwrap();
            let reported = credentials.then_some(false);
            assert_eq!((info.message_len(), info.end_of_stream()), (0, reported));
            let info = soon(a.recv_owned(Vec::with_capacity(8))).await.0.unwrap();
            let reported = credentials.then_some(true);
            assert_eq!((info.message_len(), info.end_of_stream()), (0, reported));
        }
    }
}

async fn a_descriptor_is_not_given_away_while_a_message_lies_here(cell: Cell) {
    let (a, peer) = cell.half();
    let mut receive = task::spawn(a.recv_owned(Vec::with_capacity(64)));
    arm(&mut receive).await;
    peer.send(b"message");
    breathe().await;
    drop(receive);
    let fd = match a.try_into_fd() {
        // epoll: the message is in the kernel's queue.
        Ok(fd) => fd,
        Err(a) => {
            assert_eq!(a.try_recv(&mut [0; 16]).unwrap(), 7);
            peer.send(b"message");
            a.try_into_fd().expect("nothing is left")
        }
    };
    assert_eq!(Peer::from(fd).recv(), b"message");
}

async fn sockets_come_and_go_in_stds_clothes(cell: Cell) {
    let (ours, peer) = peer::socketpair();
    let peer = Peer::from(peer);
    rustix::io::ioctl_fionbio(&ours, false).unwrap();
    let socket = UnixSeqpacket::try_from(std_net::UnixStream::from(ours)).unwrap();
    assert!(is_nonblocking(&socket));
    let carried = std_net::UnixDatagram::from(socket);
    carried.send(b"from std").unwrap();
    assert_eq!(peer.recv(), b"from std");
    let socket = cell.options().socket_from_fd(OwnedFd::from(carried)).unwrap();
    assert_eq!(socket.backend(), cell.backend);
    soon(socket.send(b"message")).await.unwrap();
    assert_eq!(peer.recv(), b"message");

    let (stream, _other) = std_net::UnixStream::pair().unwrap();
    let (datagram, _other) = std_net::UnixDatagram::pair().unwrap();
    let errors = [
        (UnixSeqpacket::try_from(stream).unwrap_err(), "Unix stream socket, not SOCK_SEQPACKET"),
        (UnixSeqpacket::try_from(datagram).unwrap_err(), "Unix datagram socket"),
    ];
    for (error, words) in errors {
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(words), "{error}");
    }
    let listener = Options::new().bind_addr(&SocketAddr::unnamed(), 1).unwrap();
    let carried = std_net::UnixListener::from(listener);
    let listener = UnixSeqpacketListener::try_from(carried).unwrap();
    assert!(is_nonblocking(listener.as_fd()));
}
