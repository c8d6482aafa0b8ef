//! G5, G8 and G11: owned buffers come back, within their bounds, whatever happens. Dropped and forgotten calls release them
//! exactly once.
#![allow(unsafe_code, reason = "buffer types of the tests' own implement unsafe traits")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;
use tokio_seqpacket::UnixSeqpacket;
use tokio_seqpacket::ancillary::AncillaryBuffer;
use tokio_seqpacket::buf::{BoundedBuf, BoundedBufMut, IoBuf, IoBufMut, Slice};
use tokio_test::task;

use crate::harness::descriptors::file;
use crate::harness::messages::{fill, nothing_is_left, recv};
use crate::harness::waiting::{arm, breathe, soon, starts_waiting, until_woken};
use crate::harness::{Cell, Test};

pub fn tests() -> Vec<Test> {
    tasks![
        a_buffer_comes_back_from_every_send,
        a_buffer_comes_back_from_every_receive,
        buffers_come_back_with_errors,
        a_slice_is_sent_and_filled_within_its_bounds,
        a_receive_marks_what_it_wrote_and_no_less,
        an_empty_buffer_is_allowed,
        scattered_receives_fill_part_after_part,
        buffers_of_other_types_work,
        a_view_that_lies_does_no_harm,
        a_slice_of_a_buffer_that_was_exchanged_is_used_as_far_as_it_goes,
        a_dropped_receive_drops_its_buffer_once_settled,
        a_dropped_send_drops_its_buffer_once_settled,
        a_waiting_call_drops_its_buffer_with_the_socket,
        a_message_for_a_dropped_receive_does_not_end_up_in_its_buffer_alone,
        destructors_of_buffers_may_use_the_socket,
        methods_of_buffers_may_use_the_socket,
        memory_of_dropped_and_forgotten_receives_is_left_alone,
    ]
}

fn address(buffer: &[u8]) -> usize {
    buffer.as_ptr() as usize
}

async fn a_buffer_comes_back_from_every_send(cell: Cell) {
    let (a, peer) = cell.half();
    for parked in [false, true] {
        // Four kinds of calls. Parked or not, the same allocation comes back.
        let mut one = b"one".to_vec();
        let mut two = vec![b"tw".to_vec(), b"o".to_vec()];
        let (at_one, at_two) = (address(&one), address(&two[0]));
        for kind in 0..4 {
            if parked {
                fill(&a);
            }
            let sent = match kind {
                0 => {
                    let mut send = task::spawn(a.send_owned(one));
                    park(parked, &mut send, &peer).await;
                    let (sent, back) = soon(send).await;
                    one = back;
                    sent
                }
                1 => {
                    let ancillary = AncillaryBuffer::from_iter([file("a file")]);
                    let mut send = task::spawn(a.send_owned_with_ancillary(one, ancillary));
                    park(parked, &mut send, &peer).await;
                    let (sent, back, ancillary) = soon(send).await;
                    assert_eq!(ancillary.fds().len(), 1);
                    one = back;
                    sent
                }
                2 => {
                    let mut send = task::spawn(a.send_owned_vectored(two));
                    park(parked, &mut send, &peer).await;
                    let (sent, back) = soon(send).await;
                    two = back;
                    sent
                }
                _ => {
                    let ancillary = AncillaryBuffer::from_iter([file("a file")]);
                    let mut send =
                        task::spawn(a.send_owned_vectored_with_ancillary(two, ancillary));
                    park(parked, &mut send, &peer).await;
                    let (sent, back, ancillary) = soon(send).await;
                    assert_eq!(ancillary.fds().len(), 1);
                    two = back;
                    sent
                }
            };
            assert_eq!(sent.unwrap(), 3);
            assert_eq!((&one[..], address(&one)), (&b"one"[..], at_one));
            assert_eq!((two.concat(), address(&two[0])), (b"two".to_vec(), at_two));
            let messages = peer.arrived();
            assert_eq!(messages, [if kind < 2 { b"one" } else { b"two" }]);
        }
    }
}

async fn park<F: Future>(
    parked: bool,
    send: &mut task::Spawn<F>,
    peer: &crate::harness::peer::Peer,
) {
    if parked {
        starts_waiting(send);
        breathe().await;
        peer.drain();
    }
}

async fn a_buffer_comes_back_from_every_receive(cell: Cell) {
    let (a, peer) = cell.half();
    for waiting in [false, true] {
        let mut one = Vec::with_capacity(64);
        let mut two = vec![Vec::with_capacity(4), Vec::with_capacity(60)];
        let (at_one, at_two) = (address(&one), address(&two[1]));
        for kind in 0..4 {
            one.clear();
            two.iter_mut().for_each(Vec::clear);
            if !waiting {
                peer.send(b"message");
            }
            let arrive = || {
                if waiting {
                    peer.send(b"message");
                }
            };
            let info = match kind {
                0 => {
                    let mut receive = task::spawn(a.recv_owned(one));
                    wait(waiting, &mut receive).await;
                    arrive();
                    let (info, back) = soon(receive).await;
                    one = back;
                    info
                }
                1 => {
                    let ancillary = AncillaryBuffer::from_iter([file("replaced")]);
                    let mut receive = task::spawn(a.recv_owned_with_ancillary(one, ancillary));
                    wait(waiting, &mut receive).await;
                    arrive();
                    let (info, back, ancillary) = soon(receive).await;
                    assert!(ancillary.is_empty());
                    one = back;
                    info
                }
                2 => {
                    let mut receive = task::spawn(a.recv_owned_vectored(two));
                    wait(waiting, &mut receive).await;
                    arrive();
                    let (info, back) = soon(receive).await;
                    two = back;
                    info
                }
                _ => {
                    let ancillary = AncillaryBuffer::from_iter([file("replaced")]);
                    let mut receive =
                        task::spawn(a.recv_owned_vectored_with_ancillary(two, ancillary));
                    wait(waiting, &mut receive).await;
                    arrive();
                    let (info, back, ancillary) = soon(receive).await;
                    assert!(ancillary.is_empty());
                    two = back;
                    info
                }
            };
            let info = info.unwrap();
            assert_eq!((info.bytes_read(), info.message_len(), info.truncated()), (7, 7, false));
            if kind < 2 {
                assert_eq!((&one[..], address(&one)), (&b"message"[..], at_one));
            } else {
                assert_eq!((two.concat(), address(&two[1])), (b"message".to_vec(), at_two));
                assert_eq!(two[0], b"mess");
            }
        }
    }
}

async fn wait<F: Future>(waiting: bool, receive: &mut task::Spawn<F>) {
    if waiting {
        starts_waiting(receive);
        breathe().await;
    }
}

async fn buffers_come_back_with_errors(cell: Cell) {
    let (a, b) = cell.pair();
    let ancillary = || AncillaryBuffer::from_iter([file("a file")]);
    drop(b);
    let (sent, buffer) = soon(a.send_owned(b"kept".to_vec())).await;
    sent.unwrap_err();
    let (sent, buffer, fds) = soon(a.send_owned_with_ancillary(buffer, ancillary())).await;
    sent.unwrap_err();
    assert_eq!((&buffer[..], fds.fds().len()), (&b"kept"[..], 1));
    let (sent, buffers) = soon(a.send_owned_vectored(vec![buffer, b"too".to_vec()])).await;
    sent.unwrap_err();
    assert_eq!(buffers, [b"kept".to_vec(), b"too".to_vec()]);

    // A waiting receive that ends with a reset.
    let (a, peer) = cell.half();
    a.send(b"never read").await.unwrap();
    let mut receive = task::spawn(a.recv_owned(b"old".to_vec()));
    arm(&mut receive).await;
    drop(peer);
    let (info, buffer) = soon(receive).await;
    info.unwrap_err();
    assert_eq!(buffer, b"old");

    // A waiting send that ends with one, or with a broken pipe.
    let (a, peer) = cell.half();
    fill(&a);
    let mut send = task::spawn(a.send_owned_with_ancillary(b"kept".to_vec(), ancillary()));
    arm(&mut send).await;
    drop(peer);
    let (sent, buffer, fds) = soon(send).await;
    sent.unwrap_err();
    assert_eq!((&buffer[..], fds.fds().len()), (&b"kept"[..], 1));
}

async fn a_slice_is_sent_and_filled_within_its_bounds(cell: Cell) {
    let (a, b) = cell.pair();
    let (sent, slice) = soon(a.send_owned(b"0123456789".to_vec().slice(2..5))).await;
    assert_eq!((sent.unwrap(), slice.into_inner()), (3, b"0123456789".to_vec()));
    for waiting in [false, true] {
        let mut receive = task::spawn(b.recv_owned(b"..........".to_vec().slice(4..8)));
        if waiting {
            starts_waiting(&mut receive);
            soon(a.send(b"234")).await.unwrap();
        }
        let (info, slice) = soon(receive).await;
        assert_eq!((info.unwrap().bytes_read(), &slice.into_inner()[..]), (3, &b"....234..."[..]));
        soon(a.send(b"too long")).await.unwrap();
        let (info, slice) = soon(b.recv_owned(b"..........".to_vec().slice(4..8))).await;
        let info = info.unwrap();
        assert_eq!((info.bytes_read(), info.message_len()), (4, 8));
        assert_eq!(slice.into_inner(), b"....too ..");
    }
    // Of a vector with spare capacity only the bounds are used.
    let mut buffer = Vec::with_capacity(64);
    buffer.extend_from_slice(b"..");
    soon(a.send(b"message")).await.unwrap();
    let (info, slice) = soon(b.recv_owned(buffer.slice(2..5))).await;
    assert!(info.unwrap().truncated());
    assert_eq!(slice.into_inner(), b"..mes");
}

async fn a_receive_marks_what_it_wrote_and_no_less(cell: Cell) {
    let (a, b) = cell.pair();
    // Longer than the message: the length stays, as documented.
    soon(a.send(b"new")).await.unwrap();
    let (info, buffer) = soon(b.recv_owned(b"older bytes".to_vec())).await;
    assert_eq!((info.unwrap().bytes_read(), &buffer[..]), (3, &b"newer bytes"[..]));
    // Shorter: it grows to what was written.
    let mut buffer = Vec::with_capacity(64);
    buffer.push(b'x');
    soon(a.send(b"message")).await.unwrap();
    let (_, buffer) = soon(b.recv_owned(buffer)).await;
    assert_eq!(buffer, b"message");
}

async fn an_empty_buffer_is_allowed(cell: Cell) {
    let (a, b) = cell.pair();
    assert_eq!(soon(a.send_owned(Vec::new())).await.0.unwrap(), 0);
    assert_eq!(soon(a.send_owned_vectored(Vec::<Vec<u8>>::new())).await.0.unwrap(), 0);
    soon(a.send(b"message")).await.unwrap();
    soon(a.send(b"message")).await.unwrap();
    assert_eq!(recv(&b).await, b"");
    assert_eq!(recv(&b).await, b"");
    let (info, _) = soon(b.recv_owned(Vec::new())).await;
    assert_eq!(info.unwrap().message_len(), 7);
    let (info, _) = soon(b.recv_owned_vectored(Vec::<Vec<u8>>::new())).await;
    let info = info.unwrap();
    assert_eq!((info.bytes_read(), info.message_len(), info.truncated()), (0, 7, true));
}

async fn scattered_receives_fill_part_after_part(cell: Cell) {
    let (a, b) = cell.pair();
    for waiting in [false, true] {
        let parts: Vec<Vec<u8>> = (0..20).map(Vec::with_capacity).collect();
        let capacities: Vec<_> = parts.iter().map(Vec::capacity).collect();
        let mut receive = task::spawn(b.recv_owned_vectored(parts));
        if waiting {
            starts_waiting(&mut receive);
        }
        let message: Vec<u8> = (0..100).collect();
        soon(a.send(&message)).await.unwrap();
        let (info, parts) = soon(receive).await;
        assert_eq!(info.unwrap().bytes_read(), 100);
        assert_eq!(parts.concat(), message);
        // 0 + 1 + .. + 13 = 91: the fifteenth part holds the last nine bytes.
        assert_eq!(parts[14].len(), 9);
        assert!(parts[15..].iter().all(Vec::is_empty));
        assert_eq!(parts.iter().map(Vec::capacity).collect::<Vec<_>>(), capacities);
    }
}

/// A buffer of another type than the crate knows, that signals when it is dropped.
struct Watched {
    bytes: Box<[u8]>,
    init: usize,
    dropped: mpsc::UnboundedSender<()>,
    then: Option<Box<dyn FnOnce() + Send>>,
}

impl Watched {
    fn new(bytes: &[u8], dropped: &mpsc::UnboundedSender<()>) -> Self {
        Self { bytes: bytes.into(), init: bytes.len(), dropped: dropped.clone(), then: None }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // A write after this would be seen by the next owner of the memory. Make it easier to
        // notice.
        self.bytes.fill(0xdd);
        if let Some(then) = self.then.take() {
            then();
        }
        let _ = self.dropped.send(());
    }
}

// SAFETY: the box stays where it is while the value is moved.
unsafe impl IoBuf for Watched {
    fn stable_ptr(&self) -> *const u8 {
        self.bytes.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.init
    }

    fn bytes_total(&self) -> usize {
        self.bytes.len()
    }
}

// SAFETY: the box stays where it is while the value is moved.
unsafe impl IoBufMut for Watched {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.bytes.as_mut_ptr()
    }

    unsafe fn set_init(&mut self, pos: usize) {
        self.init = self.init.max(pos);
    }
}

async fn buffers_of_other_types_work(cell: Cell) {
    let (a, b) = cell.pair();
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let (sent, _) = soon(a.send_owned("static text")).await;
    assert_eq!(sent.unwrap(), 11);
    let (sent, _) = soon(a.send_owned(&b"static bytes"[..])).await;
    assert_eq!(sent.unwrap(), 12);
    let (sent, watched) = soon(a.send_owned(Watched::new(b"watched", &dropped))).await;
    assert_eq!(sent.unwrap(), 7);
    drop(watched);
    soon(drops.recv()).await.unwrap();
    for message in ["static text", "static bytes", "watched"] {
        let (info, watched) = soon(b.recv_owned(Watched::new(&[0; 64], &dropped))).await;
        assert_eq!(&watched.bytes[..info.unwrap().bytes_read()], message.as_bytes());
        drop(watched);
        soon(drops.recv()).await.unwrap();
    }
    assert!(drops.is_empty());
}

/// A view of bytes 2 to 6, made without unsafe code, whose methods return what is not true.
struct Liar {
    bytes: Vec<u8>,
    /// How often it was restored from bounds.
    restored: usize,
}

impl Liar {
    fn new() -> Self {
        Self { bytes: b"0123456789".to_vec(), restored: 0 }
    }
}

impl BoundedBuf for Liar {
    type Buf = Vec<u8>;
    type Bounds = std::ops::RangeFrom<usize>;

    fn slice(self, range: impl std::ops::RangeBounds<usize>) -> Slice<Vec<u8>> {
        self.bytes.slice(range)
    }

    fn slice_full(self) -> Slice<Vec<u8>> {
        self.bytes.slice(2..6)
    }

    fn get_buf(&self) -> &Vec<u8> {
        &self.bytes
    }

    fn bounds(&self) -> Self::Bounds {
        self.restored + 1..
    }

    fn from_buf_bounds(bytes: Vec<u8>, bounds: Self::Bounds) -> Self {
        Self { bytes, restored: bounds.start }
    }

    fn stable_ptr(&self) -> *const u8 {
        std::ptr::without_provenance(1)
    }

    fn bytes_init(&self) -> usize {
        1 << 20
    }

    fn bytes_total(&self) -> usize {
        1 << 20
    }
}

impl BoundedBufMut for Liar {
    type BufMut = Vec<u8>;

    fn stable_mut_ptr(&mut self) -> *mut u8 {
        std::ptr::without_provenance_mut(1)
    }

    unsafe fn set_init(&mut self, _pos: usize) {
        panic!("no call asks the view");
    }

    fn put_slice(&mut self, _src: &[u8]) {
        panic!("no call asks the view");
    }
}

async fn a_view_that_lies_does_no_harm(cell: Cell) {
    let (a, peer) = cell.half();
    for waits in [false, true] {
        if waits {
            fill(&a);
        }
        let mut send = task::spawn(a.send_owned(Liar::new()));
        park(waits, &mut send, &peer).await;
        let (sent, liar) = soon(send).await;
        assert_eq!((sent.unwrap(), liar.restored), (4, 1));
        if waits {
            fill(&a);
        }
        let mut send = task::spawn(a.send_owned_vectored(vec![liar, Liar::new()]));
        park(waits, &mut send, &peer).await;
        let (sent, liars) = soon(send).await;
        assert_eq!((sent.unwrap(), liars[0].restored, liars[1].restored), (8, 2, 1));
        assert_eq!(liars[1].bytes, b"0123456789");
        let messages = peer.arrived();
        assert!(messages.ends_with(&[b"23452345".to_vec()]), "{messages:?}");

        let mut receive = task::spawn(a.recv_owned(Liar::new()));
        wait(waits, &mut receive).await;
        peer.send(b"message");
        let (info, liar) = soon(receive).await;
        let info = info.unwrap();
        assert_eq!((info.bytes_read(), info.message_len(), liar.restored), (4, 7, 1));
        assert_eq!(liar.bytes, b"01mess6789");
        let mut receive = task::spawn(a.recv_owned_vectored(vec![liar, Liar::new()]));
        wait(waits, &mut receive).await;
        peer.send(b"MESSAGE");
        let (info, liars) = soon(receive).await;
        assert_eq!((info.unwrap().bytes_read(), liars[0].restored), (7, 2));
        assert_eq!(liars[0].bytes, b"01MESS6789");
        assert_eq!(liars[1].bytes, b"01AGE56789");
    }
}

async fn a_slice_of_a_buffer_that_was_exchanged_is_used_as_far_as_it_goes(cell: Cell) {
    let (a, b) = cell.pair();
    let exchanged = || {
        let mut slice = vec![b'.'; 1 << 20].slice(2..1 << 20);
        *slice.get_mut() = Box::<[u8]>::from(&b"01234"[..]).into_vec();
        slice
    };
    for waiting in [false, true] {
        let (sent, slice) = soon(a.send_owned(exchanged())).await;
        assert_eq!((sent.unwrap(), slice.begin(), slice.end()), (3, 2, 1 << 20));
        assert_eq!(recv(&b).await, b"234");
        let mut receive = task::spawn(b.recv_owned(exchanged()));
        wait(waiting, &mut receive).await;
        soon(a.send(&[b'x'; 64])).await.unwrap();
        let (info, slice) = soon(receive).await;
        assert_eq!((info.unwrap().bytes_read(), slice.end()), (3, 1 << 20));
        assert_eq!(slice.into_inner(), b"01xxx");
        // Nothing is left within the bounds.
        let mut slice = b"0123456789".to_vec().slice(4..8);
        slice.get_mut().truncate(4);
        slice.get_mut().shrink_to_fit();
        soon(a.send(b"message")).await.unwrap();
        let (info, slice) = soon(b.recv_owned_vectored(vec![slice])).await;
        assert_eq!((info.unwrap().bytes_read(), &slice[0].get_ref()[..]), (0, &b"0123"[..]));
    }
    // The start is in memory that is not initialized: an error, before a message is taken.
    let mut slice = b"0123456789".to_vec().slice(4..8);
    slice.get_mut().clear();
    soon(a.send(b"message")).await.unwrap();
    let b = Arc::new(b);
    let task = tokio::spawn({
        let b = b.clone();
        async move { drop(b.recv_owned(slice).await) }
    });
    assert!(soon(task).await.unwrap_err().is_panic());
    assert_eq!(recv(&b).await, b"message");
}

async fn a_dropped_receive_drops_its_buffer_once_settled(cell: Cell) {
    let (a, peer) = cell.half();
    let (dropped, mut drops) = mpsc::unbounded_channel();
    for moment in 0..4 {
        let watched = || Watched::new(&[0; 64], &dropped);
        let mut one = task::spawn(a.recv_owned(watched()));
        let mut two = task::spawn(a.recv_owned_vectored(vec![watched(), watched()]));
        starts_waiting(&mut one);
        starts_waiting(&mut two);
        if moment > 0 {
            arm(&mut one).await;
            arm(&mut two).await;
        }
        if moment > 1 {
            peer.send(b"message");
        }
        if moment > 2 {
            until_woken(&mut one).await;
        }
        assert!(drops.is_empty());
        drop(one);
        drop(two);
        for _ in 0..3 {
            soon(drops.recv()).await.unwrap();
        }
        breathe().await;
        assert!(drops.is_empty());
        if moment > 1 {
            assert_eq!(recv(&a).await, b"message");
        }
        nothing_is_left(&a, &peer).await;
    }
}

async fn a_dropped_send_drops_its_buffer_once_settled(cell: Cell) {
    let (dropped, mut drops) = mpsc::unbounded_channel();
    for armed in [false, true] {
        let (a, peer) = cell.half();
        fill(&a);
        let watched = || Watched::new(b"dropped", &dropped);
        let mut one = task::spawn(a.send_owned(watched()));
        let mut two = task::spawn(a.send_owned_vectored(vec![watched(), watched()]));
        starts_waiting(&mut one);
        starts_waiting(&mut two);
        if armed {
            arm(&mut one).await;
            arm(&mut two).await;
        }
        assert!(drops.is_empty());
        drop(one);
        drop(two);
        for _ in 0..3 {
            soon(drops.recv()).await.unwrap();
        }
        breathe().await;
        assert!(drops.is_empty());
        peer.drain();
        soon(a.send(b"next")).await.unwrap();
        // A buffer that was overwritten when it was dropped must not be sent.
        let messages = peer.everything();
        assert!(messages.iter().all(|message| message.iter().all(|byte| *byte != 0xdd)));
    }
}

async fn a_waiting_call_drops_its_buffer_with_the_socket(cell: Cell) {
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let (a, _peer) = cell.half();
    fill(&a);
    let a = Arc::new(a);
    let tasks = [
        tokio::spawn({
            let (a, buffer) = (a.clone(), Watched::new(&[0; 64], &dropped));
            async move { drop(a.recv_owned(buffer).await) }
        }),
        tokio::spawn({
            let buffer = Watched::new(b"waiting", &dropped);
            async move { drop(a.send_owned(buffer).await) }
        }),
    ];
    breathe().await;
    assert!(drops.is_empty());
    tasks.iter().for_each(|task| task.abort());
    for task in tasks {
        assert!(soon(task).await.unwrap_err().is_cancelled());
        soon(drops.recv()).await.unwrap();
    }
    breathe().await;
    assert!(drops.is_empty());
}

async fn a_message_for_a_dropped_receive_does_not_end_up_in_its_buffer_alone(cell: Cell) {
    let (a, peer) = cell.half();
    for size in [0, 1, 3, 7, 64] {
        for completed in [false, true] {
            let mut receive = task::spawn(a.recv_owned(Vec::with_capacity(size)));
            arm(&mut receive).await;
            peer.send(b"message");
            if completed {
                until_woken(&mut receive).await;
            }
            drop(receive);
            let (info, buffer) = soon(a.recv_owned(Vec::with_capacity(64))).await;
            assert_eq!((info.unwrap().message_len(), &buffer[..]), (7, &b"message"[..]));
        }
    }
}

async fn destructors_of_buffers_may_use_the_socket(cell: Cell) {
    let (a, peer) = cell.half();
    let a = Arc::new(a);
    let (dropped, mut drops) = mpsc::unbounded_channel();
    let count = Arc::new(AtomicUsize::new(0));
    let busy = || {
        let mut watched = Watched::new(&[0; 64], &dropped);
        let (a, count): (Arc<UnixSeqpacket>, _) = (a.clone(), count.clone());
        watched.then = Some(Box::new(move || {
            let _ = a.try_recv(&mut [0; 1]);
            let _ = a.try_send(b"from a destructor");
            let mut receive = task::spawn(a.recv_owned(Vec::with_capacity(64)));
            let _ = receive.poll();
            drop(receive);
            count.fetch_add(1, Ordering::Relaxed);
        }));
        watched
    };
    for moment in 0..6 {
        let mut receive = task::spawn(a.recv_owned(busy()));
        let mut behind = task::spawn(a.recv_owned(busy()));
        starts_waiting(&mut receive);
        starts_waiting(&mut behind);
        if moment % 2 == 0 {
            arm(&mut receive).await;
            arm(&mut behind).await;
        }
        if moment % 3 == 0 {
            peer.send(b"message");
        }
        drop(receive);
        breathe().await;
        drop(behind);
        for _ in 0..2 {
            soon(drops.recv()).await.unwrap();
        }
        peer.drain();
    }
    assert_eq!(count.load(Ordering::Relaxed), 12);
    // Still in order, whatever the destructors took.
    peer.send(b"the end");
    while recv(&a).await != b"the end" {}
}

/// A buffer whose methods send and receive on a socket.
struct Meddler {
    bytes: Vec<u8>,
    socket: Arc<UnixSeqpacket>,
    asked: Arc<AtomicUsize>,
    initialized: Arc<AtomicUsize>,
}

impl Meddler {
    fn meddle(&self) {
        let _ = self.socket.try_recv(&mut [0; 1]);
        let _ = self.socket.try_send(b"from a method");
        let mut receive = task::spawn(self.socket.recv_owned(Vec::with_capacity(1)));
        let _ = receive.poll();
    }

    fn asked(&self) {
        self.meddle();
        self.asked.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: the vector does not change.
unsafe impl IoBuf for Meddler {
    fn stable_ptr(&self) -> *const u8 {
        self.asked();
        self.bytes.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.asked();
        self.bytes.len()
    }

    fn bytes_total(&self) -> usize {
        self.asked();
        self.bytes.len()
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for Meddler {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.asked();
        self.bytes.as_mut_ptr()
    }

    unsafe fn set_init(&mut self, _pos: usize) {
        self.meddle();
        self.initialized.fetch_add(1, Ordering::Relaxed);
    }
}

async fn methods_of_buffers_may_use_the_socket(cell: Cell) {
    let (a, peer) = cell.half();
    let a = Arc::new(a);
    let (asked, initialized) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let meddler = |len: usize| Meddler {
        bytes: vec![0; len],
        socket: a.clone(),
        asked: asked.clone(),
        initialized: initialized.clone(),
    };
    // They take messages of their own, too.
    let arrive = || (0..200).for_each(|_| peer.send(b"message"));
    for waits in [false, true] {
        for parts in [1, 4, 6] {
            if !waits {
                arrive();
            }
            let buffers = (0..parts).map(|_| meddler(2)).collect();
            let mut receive = task::spawn(a.recv_owned_vectored(buffers));
            if waits {
                arm(&mut receive).await;
                arrive();
            }
            let (info, buffers) = soon(receive).await;
            let len = (2 * parts).min(7);
            assert_eq!(
                (info.unwrap().bytes_read(), initialized.swap(0, Ordering::Relaxed)),
                (len, parts)
            );
            let bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.bytes.clone()).collect();
            assert_eq!(bytes[..len], b"message"[..len]);
            while a.try_recv(&mut [0; 8]).is_ok() {}
            peer.drain();

            // One that finds a message which the kernel had received for another call.
            let mut gone = task::spawn(a.recv_owned(Vec::with_capacity(8)));
            arm(&mut gone).await;
            arrive();
            until_woken(&mut gone).await;
            drop(gone);
            let (info, buffer) = soon(a.recv_owned(meddler(8))).await;
            assert_eq!((info.unwrap().bytes_read(), &buffer.bytes[..7]), (7, &b"message"[..]));
            assert_eq!(initialized.swap(0, Ordering::Relaxed), 1);
            while a.try_recv(&mut [0; 8]).is_ok() {}
            peer.drain();

            if waits {
                fill(&a);
            }
            let mut send = task::spawn(a.send_owned_vectored(vec![meddler(1), meddler(2)]));
            park(waits, &mut send, &peer).await;
            assert_eq!(soon(send).await.0.unwrap(), 3);
            peer.drain();
        }
    }
    assert!(asked.load(Ordering::Relaxed) > 0);
}

async fn memory_of_dropped_and_forgotten_receives_is_left_alone(cell: Cell) {
    // Memory that was given back, and is allocated again, is never written to.
    for round in 0..100u8 {
        let (a, peer) = cell.half();
        let mut receive = task::spawn(a.recv_owned(vec![0; 4096]));
        let mut borrowed_from = vec![0; 4096];
        let mut borrowed = task::spawn(a.recv(&mut borrowed_from));
        starts_waiting(&mut receive);
        starts_waiting(&mut borrowed);
        if round % 4 == 0 {
            arm(&mut receive).await;
            arm(&mut borrowed).await;
        } else if round % 4 == 1 {
            tokio::task::yield_now().await;
        }
        if round % 2 == 0 {
            drop(receive);
            drop(borrowed);
        } else {
            std::mem::forget(receive);
            std::mem::forget(borrowed);
        }
        let others: Vec<Vec<u8>> = (0..4).map(|_| vec![0xaa; 4096]).collect();
        borrowed_from.fill(0xaa);
        peer.send(&[round; 4096]);
        peer.send(&[round; 4096]);
        tokio::task::yield_now().await;
        if round % 8 == 0 {
            breathe().await;
        }
        drop(a);
        tokio::task::yield_now().await;
        let written = |bytes: &[u8]| bytes.iter().any(|byte| *byte != 0xaa);
        assert!(!others.iter().any(|other| written(other)), "round {round}");
        assert!(!written(&borrowed_from), "round {round}");
    }
}
