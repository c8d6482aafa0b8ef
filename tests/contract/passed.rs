//! G2, G3, G8 and G13 for values with descriptors and credentials in them.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use futures_util::{FutureExt, SinkExt, StreamExt};
use serde::ser::Error as _;
use serde::{Deserialize, Serialize, Serializer};
use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::codec::{
    Passed, Postcard, WithCredentials, WithFds, decode_with_fds, encode_with_fds,
};
use tokio_seqpacket::{Framed, UCred, UnixSeqpacket};
use tokio_test::task;
use tokio_util::codec::{BytesCodec, LinesCodec};

use crate::harness::descriptors::{
    Full, Trace, content, descriptors, file, is_close_on_exec, traced,
};
use crate::harness::messages::fill;
use crate::harness::waiting::{arm, soon, until_woken};
use crate::harness::{Cell, Test, alone, with_pidfds};

pub fn tests() -> Vec<Test> {
    let shared = tasks![
        values_arrive_with_their_descriptors,
        each_descriptor_of_a_message_is_named_once_or_all_are_closed,
        a_descriptor_of_another_type_is_refused_and_closed,
        a_value_with_too_many_descriptors_is_not_sent,
        a_value_whose_encoding_fails_leaves_no_descriptor,
        an_encoding_inside_another_keeps_its_own_descriptors,
        a_socket_without_max_fds_takes_no_descriptor_of_a_message_around_it,
        a_second_value_without_poll_ready_is_refused_and_the_first_goes_out,
        without_max_fds_no_value_has_descriptors,
        descriptors_come_beside_the_items_of_any_codec,
        each_value_comes_with_the_credentials_of_its_sender,
        a_dropped_receive_leaves_the_value_and_its_descriptor,
        a_dropped_send_keeps_the_descriptor_with_its_message,
    ];
    let own = alone(
        [
            tasks![without_a_free_descriptor_a_value_is_refused_and_the_next_goes_through],
            with_pidfds(tasks![a_pidfd_beside_a_value_is_closed]),
        ]
        .concat(),
    );
    [shared, own].concat()
}

#[derive(Debug, Serialize, Deserialize)]
enum Reply {
    Opened { name: String, file: Passed<OwnedFd> },
    Both(Passed<OwnedFd>, Passed<OwnedFd>),
    Missing,
}

type Replies = Postcard<Reply>;
type Fds = Postcard<Vec<Passed<OwnedFd>>>;

fn framed(socket: UnixSeqpacket) -> Framed<Replies> {
    Framed::new(socket, Postcard::new()).max_fds(2)
}

fn traces(count: usize) -> (Vec<Trace>, Vec<OwnedFd>) {
    (0..count).map(|_| traced()).unzip()
}

async fn all_closed(traces: &[Trace]) {
    for trace in traces {
        trace.closed().await;
    }
}

async fn values_arrive_with_their_descriptors(cell: Cell) {
    let (a, b) = cell.pair();
    let (mut a, mut b) = (framed(a), framed(b));
    let (trace, fd) = traced();
    let replies = [
        Reply::Missing,
        Reply::Opened { name: "one".into(), file: Passed(file("one")) },
        Reply::Both(Passed(file("two")), Passed(fd)),
        Reply::Missing,
    ];
    for reply in replies {
        soon(a.send(reply)).await.unwrap();
    }
    assert!(matches!(soon(b.next()).await, Some(Ok(Reply::Missing))));
    let Some(Ok(Reply::Opened { name, file: Passed(file) })) = soon(b.next()).await else {
        panic!("not the value that was sent");
    };
    assert_eq!((&name[..], &content(&file)[..]), ("one", "one"));
    assert!(is_close_on_exec(&file));
    let Some(Ok(Reply::Both(Passed(two), Passed(fd)))) = soon(b.next()).await else {
        panic!("not the value that was sent");
    };
    assert_eq!(content(&two), "two");
    assert!(trace.is_open());
    // The sender's were closed with the value.
    drop(fd);
    trace.closed().await;
    assert!(matches!(soon(b.next()).await, Some(Ok(Reply::Missing))));
}

/// As postcard writes a vector of descriptors: how many, and the index of each.
async fn each_descriptor_of_a_message_is_named_once_or_all_are_closed(cell: Cell) {
    let (a, peer) = cell.half();
    let mut a = Framed::with_capacity(a, Fds::new(), 64).max_fds(3);
    let faults = [
        (&[2, 0, 0][..], 1, "names descriptor 0 twice"),
        (&[0], 1, "does not name descriptor 0 of the 1"),
        (&[2, 2, 0], 3, "does not name descriptor 1 of the 3"),
        (&[2, 0, 7], 2, "names descriptor 7, and 2 came"),
        (&[1, 0], 0, "names descriptor 0, and none came"),
        (&[1, 0, 9], 1, "1 bytes behind the value"),
        (&[1], 2, "message of 1 bytes is no value of alloc::vec::Vec<"),
        (&[1], 2, "end of buffer"),
        (&[4, 0, 1, 2, 3], 4, "the limit of 3 (Framed::max_fds)"),
        // More than there is capacity for.
        (&[0], 100, "the limit of 3 (Framed::max_fds)"),
        (&[0; 65], 1, "capacity of 64 bytes"),
    ];
    for (bytes, count, words) in faults {
        let (traces, fds) = traces(count);
        if count == 0 {
            peer.send(bytes);
        } else {
            peer.send_fds(bytes, &fds);
        }
        drop(fds);
        let error = soon(a.next()).await.expect("an error").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(error.to_string().contains(words), "{error}, not {words}");
        all_closed(&traces).await;
        // The stream goes on.
        peer.send_fds(&[3, 2, 0, 1], &[file("b"), file("c"), file("a")]);
        let fds = soon(a.next()).await.unwrap().unwrap();
        assert_eq!(fds.iter().map(|fd| content(&fd.0)).collect::<String>(), "abc");
    }
}

async fn a_descriptor_of_another_type_is_refused_and_closed(cell: Cell) {
    let (a, peer) = cell.half();
    let mut a = Framed::new(a, Postcard::<(), Passed<UnixSeqpacket>>::new()).max_fds(1);
    let (trace, fd) = traced();
    peer.send_fds(&[0], &[fd]);
    let error = soon(a.next()).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("descriptor 0") && error.contains("not a socket"), "{error}");
    trace.closed().await;

    let (socket, other) = cell.pair();
    peer.send_fds(&[0], &[socket.try_into_fd().unwrap()]);
    let Passed(socket) = soon(a.next()).await.unwrap().unwrap();
    soon(socket.send(b"hello")).await.unwrap();
    assert_eq!(soon(other.recv(&mut [0; 8])).await.unwrap(), 5);
}

async fn a_value_with_too_many_descriptors_is_not_sent(cell: Cell) {
    let (a, peer) = cell.half();
    let a = Arc::new(a);
    for (limit, words) in [(2, "more than 2"), (0, "Framed::max_fds")] {
        let mut a = Framed::new(a.clone(), Fds::new()).max_fds(limit);
        let (traces, fds) = traces(3);
        let value = fds.into_iter().map(Passed).collect();
        let error = soon(a.send(value)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains(words), "{error}");
        all_closed(&traces).await;
        soon(a.send(Vec::new())).await.unwrap();
        assert_eq!(peer.arrived(), [b"\0"]);
    }
    // The limit of the kernel.
    let mut a = Framed::new(a, Fds::new()).max_fds(1000);
    let (trace, fd) = traced();
    let many = |count| (0..count).map(|_| Passed(fd.try_clone().unwrap())).collect();
    let error = soon(a.send(many(254))).await.unwrap_err().to_string();
    assert!(error.contains("more than 253"), "{error}");
    soon(a.send(many(253))).await.unwrap();
    assert_eq!(peer.try_recv_fds().unwrap().1.len(), 253);
    drop(fd);
    trace.closed().await;
}

/// Serializes a descriptor, and then does what it says.
struct Then(OwnedFd, fn() -> io::Result<()>);

impl Serialize for Then {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let done = Passed(&self.0).serialize(serializer)?;
        (self.1)().map_err(S::Error::custom)?;
        Ok(done)
    }
}

async fn a_value_whose_encoding_fails_leaves_no_descriptor(cell: Cell) {
    let (a, peer) = cell.half();
    let mut a = Framed::new(a, Postcard::<Then, ()>::new()).max_fds(1);
    let (trace, fd) = traced();
    let error = soon(a.send(Then(fd, || Err(ErrorKind::Other.into())))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("passed::Then not serialized"), "{error}");
    trace.closed().await;

    let (trace, fd) = traced();
    let sink =
        AssertUnwindSafe(|| a.start_send_unpin(Then(fd, || resume_unwind(Box::new("user code")))));
    catch_unwind(sink).unwrap_err();
    trace.closed().await;
    // The scope has ended with the panic.
    let outside = postcard::to_stdvec(&Passed(file("outside")));
    assert_eq!(outside, Err(postcard::Error::SerdeSerCustom));

    soon(a.send(Then(file("sent"), || Ok(())))).await.unwrap();
    let (bytes, fds) = peer.try_recv_fds().unwrap();
    assert_eq!((&bytes[..], &content(&fds[0])[..]), (&[0][..], "sent"));
}

thread_local! {
    static INNER: RefCell<Option<AncillaryBuffer>> = const { RefCell::new(None) };
}

async fn an_encoding_inside_another_keeps_its_own_descriptors(cell: Cell) {
    let (a, peer) = cell.half();
    let mut a = Framed::new(a, Postcard::<(Then, Passed<OwnedFd>), ()>::new()).max_fds(2);
    let encode_inside = || {
        let mut inner = AncillaryBuffer::new();
        let bytes = encode_with_fds(&mut inner, || {
            postcard::to_stdvec(&Passed(file("inner"))).map_err(io::Error::other)
        })?;
        assert_eq!(bytes, [0]);
        INNER.set(Some(inner));
        Ok(())
    };
    a.start_send_unpin((Then(file("first"), encode_inside), Passed(file("second")))).unwrap();
    let mut inner = INNER.take().expect("encoded on this thread");
    assert_eq!(content(&inner.fds()[0]), "inner");
    soon(a.flush()).await.unwrap();
    let (bytes, fds) = peer.try_recv_fds().unwrap();
    assert_eq!(bytes, [0, 1]);
    assert_eq!(fds.iter().map(content).collect::<Vec<_>>(), ["first", "second"]);

    let Passed(fd) = decode_with_fds(&mut inner, || {
        postcard::from_bytes::<Passed<OwnedFd>>(&[0]).map_err(io::Error::other)
    })
    .unwrap();
    assert_eq!(content(&fd), "inner");
}

/// Sends and receives a descriptor over another socket while it is encoded or decoded itself.
struct Nested(Passed<OwnedFd>);

type Inside = Framed<Postcard<Passed<OwnedFd>>>;

thread_local! {
    static INSIDE: RefCell<Option<Inside>> = const { RefCell::new(None) };
}

fn with_inside<T>(call: impl FnOnce(&mut Inside) -> T) -> T {
    INSIDE.with_borrow_mut(|inside| call(inside.as_mut().expect("set on this thread")))
}

impl Serialize for Nested {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let refused = with_inside(|inside| inside.start_send_unpin(Passed(file("inner"))));
        assert!(refused.unwrap_err().to_string().contains("Framed::max_fds"));
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Nested {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let refused = with_inside(|inside| inside.next().now_or_never());
        let refused = refused.expect("a message is there").expect("not the end").unwrap_err();
        assert!(refused.to_string().contains("Framed::max_fds"), "{refused}");
        Passed::deserialize(deserializer).map(Self)
    }
}

async fn a_socket_without_max_fds_takes_no_descriptor_of_a_message_around_it(cell: Cell) {
    let (a, b) = cell.pair();
    let mut a = Framed::new(a, Postcard::<Nested>::new()).max_fds(2);
    let mut b = Framed::new(b, Postcard::<Nested>::new()).max_fds(2);
    let (inside, peer) = cell.half();
    // In one poll, so on one thread.
    INSIDE.set(Some(Framed::new(inside, Postcard::new())));
    a.start_send_unpin(Nested(Passed(file("outer")))).unwrap();
    let inside = INSIDE.take();
    soon(a.flush()).await.unwrap();
    assert!(peer.try_recv().is_err());

    peer.send(&[0]);
    until_readable(b.get_ref()).await;
    until_readable(inside.as_ref().expect("put back").get_ref()).await;
    INSIDE.set(inside);
    let decoded = b.next().now_or_never().expect("a message is there");
    INSIDE.take();
    let Nested(Passed(fd)) = decoded.expect("not the end").unwrap();
    assert_eq!(content(&fd), "outer");
}

async fn until_readable(socket: &UnixSeqpacket) {
    soon(socket.readable()).await.unwrap();
}

async fn a_second_value_without_poll_ready_is_refused_and_the_first_goes_out(cell: Cell) {
    let (a, b) = cell.pair();
    let mut a = Framed::new(a, WithFds(LinesCodec::new())).max_fds(1);
    let mut b = Framed::new(b, WithFds(LinesCodec::new())).max_fds(1);
    a.start_send_unpin(("one", vec![file("one")])).unwrap();
    let (trace, fd) = traced();
    let error = a.start_send_unpin(("two", vec![fd])).unwrap_err();
    assert!(error.to_string().contains("poll_ready"), "{error}");
    trace.closed().await;
    soon(a.send(("three", vec![file("three")]))).await.unwrap();
    for expected in ["one", "three"] {
        let (line, fds) = soon(b.next()).await.unwrap().unwrap();
        assert_eq!((&line[..], &content(&fds[0])[..]), (expected, expected));
    }
}

async fn without_max_fds_no_value_has_descriptors(cell: Cell) {
    let (a, peer) = cell.half();
    let mut a = Framed::new(a, Postcard::<Reply>::new());
    let (trace, fd) = traced();
    let opened = Reply::Opened { name: String::new(), file: Passed(fd) };
    let error = soon(a.send(opened)).await.unwrap_err().to_string();
    assert!(error.contains("Framed::max_fds"), "{error}");
    trace.closed().await;

    let (trace, fd) = traced();
    peer.send_fds(&[0, 0, 0], &[fd]);
    let error = soon(a.next()).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("Framed::max_fds"), "{error}");
    trace.closed().await;

    let mut a = Framed::new(a.into_inner(), WithFds(LinesCodec::new()));
    peer.send(b"line\n");
    let error = soon(a.next()).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("Framed::max_fds"), "{error}");
    soon(a.send(("no descriptors", Vec::new()))).await.unwrap();
    assert_eq!(peer.recv(), b"no descriptors\n");
}

async fn descriptors_come_beside_the_items_of_any_codec(cell: Cell) {
    let (a, b) = cell.pair();
    let mut a = Framed::new(a, WithFds(BytesCodec::new())).max_fds(3);
    let mut b = Framed::new(b, WithFds(BytesCodec::new())).max_fds(3);
    for count in [0, 3, 1] {
        let fds = (0..count).map(|n: u8| file(&n.to_string())).collect();
        soon(a.send((bytes::Bytes::from(vec![count; 70]), fds))).await.unwrap();
        let (bytes, fds) = soon(b.next()).await.unwrap().unwrap();
        assert_eq!(bytes, vec![count; 70]);
        let contents: Vec<_> = fds.iter().map(content).collect();
        assert_eq!(contents, ["0", "1", "2"][..count as usize]);
    }
    let (traces, fds) = traces(4);
    let four = (bytes::Bytes::new(), fds);
    assert!(soon(a.send(four)).await.unwrap_err().to_string().contains("more than 3"));
    all_closed(&traces).await;
}

async fn each_value_comes_with_the_credentials_of_its_sender(cell: Cell) {
    let (a, b) = cell.pair();
    let mut a = Framed::new(a, Fds::new()).max_fds(1);
    let codec = WithCredentials(Postcard::<(), Vec<Passed<File>>>::new());
    let mut b = Framed::new(b, codec).max_fds(1);
    soon(a.send(Vec::new())).await.unwrap();
    let error = soon(b.next()).await.unwrap().unwrap_err().to_string();
    assert!(error.contains("set_pass_credentials"), "{error}");

    b.get_ref().set_pass_credentials(true).unwrap();
    for count in [0, 1] {
        soon(a.send((0..count).map(|_| Passed(file("a file"))).collect())).await.unwrap();
        let (files, sender) = soon(b.next()).await.unwrap().unwrap();
        assert_eq!((files.len(), sender), (count, UCred::from_current_process()));
    }
}

async fn a_dropped_receive_leaves_the_value_and_its_descriptor(cell: Cell) {
    let (a, b) = cell.pair();
    let (mut a, mut b) = (framed(a), framed(b));
    for round in 0..3 {
        let mut waiting = task::spawn(b.next());
        arm(&mut waiting).await;
        let opened = Reply::Opened { name: round.to_string(), file: Passed(file("kept")) };
        if round == 0 {
            drop(waiting);
            soon(a.send(opened)).await.unwrap();
        } else {
            // It has been woken, and may have received the message.
            soon(a.send(opened)).await.unwrap();
            until_woken(&mut waiting).await;
            drop(waiting);
        }
        let Some(Ok(Reply::Opened { name, file })) = soon(b.next()).await else {
            panic!("not the value that was sent");
        };
        assert_eq!((name, &content(&file.0)[..]), (round.to_string(), "kept"));
    }
}

async fn a_dropped_send_keeps_the_descriptor_with_its_message(cell: Cell) {
    let (a, peer) = cell.half();
    fill(&a);
    let mut a = framed(a);
    let (trace, fd) = traced();
    let mut send = task::spawn(a.send(Reply::Opened { name: "x".into(), file: Passed(fd) }));
    arm(&mut send).await;
    drop(send);
    // The sink holds it, and no other message takes its descriptor.
    assert!(trace.is_open());
    let mut other = task::spawn(a.send(Reply::Missing));
    arm(&mut other).await;
    drop(other);
    peer.drain();
    soon(a.flush()).await.unwrap();
    let (bytes, fds) = peer.try_recv_fds().unwrap();
    assert_eq!((&bytes[..], fds.len()), (&[0, 1, b'x', 0][..], 1));
    drop(fds);
    trace.closed().await;

    // Or it is closed with the sink.
    fill(a.get_ref());
    let (trace, fd) = traced();
    soon(a.feed(Reply::Opened { name: "x".into(), file: Passed(fd) })).await.unwrap();
    assert!(trace.is_open());
    drop(a);
    trace.closed().await;
}

async fn without_a_free_descriptor_a_value_is_refused_and_the_next_goes_through(cell: Cell) {
    let (a, peer) = cell.half();
    let mut a = framed(a);
    let opened = || Reply::Opened { name: String::new(), file: Passed(file("a file")) };
    // What the backend and the tests need once.
    soon(a.send(opened())).await.unwrap();
    peer.try_recv_fds().unwrap();
    let (first, second) = (opened(), opened());
    peer.send_fds(&[0, 0, 0], &[file("a file")]);
    peer.send_fds(&[0, 0, 0], &[file("another")]);

    let full = Full::new();
    let received = soon(a.next()).await.unwrap();
    // A refused value is dropped, which frees its descriptor.
    let sent = soon(a.send(first)).await;
    drop(full);
    assert_eq!(sent.unwrap_err().raw_os_error(), Some(libc::EMFILE));
    let error = received.unwrap_err().to_string();
    assert!(error.contains("no descriptor was free"), "{error}");

    soon(a.send(second)).await.unwrap();
    assert_eq!(content(&peer.try_recv_fds().unwrap().1[0]), "a file");
    let Some(Ok(Reply::Opened { file: Passed(file), .. })) = soon(a.next()).await else {
        panic!("not the value that was sent");
    };
    assert_eq!(content(&file), "another");
}

async fn a_pidfd_beside_a_value_is_closed(cell: Cell) {
    let (a, peer) = cell.half();
    a.set_pass_pidfd(true).unwrap();
    let mut a = framed(a);
    peer.send_fds(&[0, 0, 0], &[file("a file")]);
    assert!(matches!(soon(a.next()).await, Some(Ok(Reply::Opened { .. }))));
    assert!(!descriptors().iter().any(|(_, what)| what.contains("pidfd")));
}
