//! G2, G3, G8, G11 and G12 in races: sockets, futures and batches that end while an operation of theirs is on its way, and what
//! is left of the process's resources.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio_seqpacket::UnixSeqpacket;
use tokio_test::task::{self, Spawn};

use crate::harness::call_variants::{self, RecvBy, Room, SendBy};
use crate::harness::descriptors::Full;
use crate::harness::messages::{FILLER, Random, fill, recv};
use crate::harness::peer::Peer;
use crate::harness::waiting::{arm, arm_all, breathe, soon, starts_waiting};
use crate::harness::{Cell, Test, alone};

pub fn tests() -> Vec<Test> {
    [
        tasks![
            sockets_dropped_on_another_thread_right_after_a_first_poll_close,
            sockets_dropped_on_another_thread_while_receives_are_being_parked_close,
            sockets_dropped_on_another_thread_while_receives_are_parked_close,
            sockets_dropped_on_another_thread_while_sends_wait_close,
            sockets_of_tasks_whose_receive_timed_out_close,
            sockets_of_tasks_aborted_while_they_receive_close,
            a_descriptor_taken_after_a_dropped_receive_gets_the_next_message,
            descriptors_taken_elsewhere_after_dropped_receives_get_the_next_messages,
            a_descriptor_taken_after_a_dropped_send_sends_in_order,
            sent_is_right_after_a_send_of_a_batch_is_dropped,
            skip_does_not_skip_a_message_that_went_out,
            a_batch_dropped_in_a_race_with_a_draining_peer_has_counted_what_went_out,
            a_receive_into_1024_owned_buffers_waits,
            a_receive_into_1024_borrowed_buffers_waits,
            a_send_from_1024_buffers_waits,
        ],
        alone(tasks![
            into_raw_fd_without_a_free_descriptor_returns,
            waiting_receives_work_with_little_address_space,
            waiting_sends_work_with_little_address_space,
        ]),
    ]
    .concat()
}

/// Whether the other end is closed, also while messages of it are queued.
fn is_closed(peer: &Peer) -> bool {
    let mut polled = [PollFd::new(&peer.fd, PollFlags::empty())];
    rustix::event::poll(&mut polled, Some(&Timespec::default())).expect("poll(2)");
    polled[0].revents().contains(PollFlags::HUP)
}

/// Waits until the other ends of all are closed. Reads nothing: capacity in a queue would help a send that
/// was left behind to its end.
#[track_caller]
fn all_end(peers: Vec<Peer>) -> impl Future<Output = ()> {
    let mut peers = peers;
    soon(async move {
        loop {
            peers.retain(|peer| !is_closed(peer));
            if peers.is_empty() {
                return;
            }
            breathe().await;
        }
    })
}

type Call = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A call that owns its socket.
fn receive(socket: UnixSeqpacket, way: RecvBy) -> Call {
    Box::pin(async move { drop(call_variants::recv(way, &socket, Room::TIGHT).await) })
}

fn send(socket: UnixSeqpacket, way: SendBy) -> Call {
    Box::pin(async move { drop(call_variants::send(way, &socket, b"waiting", &[]).await) })
}

type Work = Box<dyn FnOnce() + Send>;

/// A thread that does what it is given, once it may start.
struct Elsewhere {
    give: mpsc::Sender<Vec<Work>>,
    /// How many rounds of work are ready to start, may start, are done.
    ready: Arc<AtomicUsize>,
    started: Arc<AtomicUsize>,
    done: Arc<AtomicUsize>,
    thread: thread::JoinHandle<()>,
}

/// Microseconds, roughly, that the runtime is busy with the calls of a round.
const MEANWHILE: u64 = 80;

/// For a moment that is about to come. The other thread may need this core.
fn spin_until(mut come: impl FnMut() -> bool) {
    for n in 1.. {
        if come() {
            return;
        }
        std::hint::spin_loop();
        if n % 1000 == 0 {
            thread::yield_now();
        }
    }
}

impl Elsewhere {
    fn new() -> Self {
        let (give, given) = mpsc::channel::<Vec<Work>>();
        let [ready, started, done] = [(); 3].map(|()| Arc::<AtomicUsize>::default());
        let thread = thread::spawn({
            let (ready, started, done) = (ready.clone(), started.clone(), done.clone());
            move || {
                let mut random = Random(19);
                for (n, works) in given.into_iter().enumerate() {
                    ready.store(n + 1, Ordering::Release);
                    spin_until(|| started.load(Ordering::Acquire) > n);
                    // At any moment of what the runtime does meanwhile.
                    let (begin, pause) = (Instant::now(), random.below(MEANWHILE));
                    spin_until(|| begin.elapsed() >= Duration::from_micros(pause));
                    works.into_iter().for_each(|work| work());
                    done.store(n + 1, Ordering::Release);
                }
            }
        });
        Self { give, ready, started, done, thread }
    }

    /// Returns when it is done; it has begun when the runtime runs.
    async fn does(&self, works: Vec<Work>) {
        let number = self.started.load(Ordering::Relaxed) + 1;
        self.give.send(works).expect("the thread is there");
        spin_until(|| self.ready.load(Ordering::Acquire) == number);
        self.started.store(number, Ordering::Release);
        tokio::task::yield_now().await;
        soon(async {
            while self.done.load(Ordering::Acquire) < number {
                breathe().await;
            }
        })
        .await;
    }

    fn ends(self) {
        drop(self.give);
        self.thread.join().expect("no panic");
    }
}

/// How far calls have come when they are dropped. They are polled so often, with a turn of the run queue before
/// each poll, as long as they wake themselves. Then come so many more turns.
#[derive(Debug, Clone, Copy)]
struct Reached {
    polls: u64,
    turns: u64,
}

impl Reached {
    const FIRST_POLL: Self = Self { polls: 1, turns: 0 };

    async fn by(self, calls: &mut [Spawn<Call>]) {
        calls.iter_mut().for_each(starts_waiting);
        for _ in 1..self.polls {
            tokio::task::yield_now().await;
            calls.iter_mut().filter(|call| call.is_woken()).for_each(starts_waiting);
        }
        for _ in 0..self.turns {
            tokio::task::yield_now().await;
        }
    }
}

/// So many at a time are open.
const ROUND: usize = 25;

/// So many rounds, or as many as there is time for.
fn rounds(count: usize) -> impl Iterator<Item = usize> {
    let begin = Instant::now();
    (0..count).take_while(move |_| begin.elapsed() < Duration::from_millis(1500))
}

/// Drops calls on another thread while the runtime works on their operations.
async fn dropped_elsewhere(
    cell: Cell,
    count: usize,
    mut call: impl FnMut(UnixSeqpacket, usize) -> Call,
    mut reached: impl FnMut(&mut Random) -> Reached,
) {
    let elsewhere = Elsewhere::new();
    let mut random = Random(17);
    for _ in rounds(count) {
        let (sockets, peers): (Vec<_>, Vec<_>) = (0..ROUND).map(|_| cell.half()).unzip();
        let calls = sockets.into_iter().enumerate();
        let mut calls: Vec<_> = calls.map(|(n, socket)| task::spawn(call(socket, n))).collect();
        // First polls pay tokio's budget: there has to be enough for all.
        tokio::task::yield_now().await;
        reached(&mut random).by(&mut calls).await;
        let drops = calls.into_iter().map(|call| Box::new(move || drop(call)) as Work);
        elsewhere.does(drops.collect()).await;
        all_end(peers).await;
    }
    elsewhere.ends();
}

async fn sockets_dropped_on_another_thread_right_after_a_first_poll_close(cell: Cell) {
    let call = |a, n| receive(a, RecvBy::QUEUED[n % RecvBy::QUEUED.len()]);
    dropped_elsewhere(cell, 60, call, |_| Reached::FIRST_POLL).await;
}

async fn sockets_dropped_on_another_thread_while_receives_are_being_parked_close(cell: Cell) {
    let call = |a, n| receive(a, RecvBy::QUEUED[n % RecvBy::QUEUED.len()]);
    dropped_elsewhere(cell, 300, call, |random| Reached {
        polls: 4 + random.below(3),
        turns: random.below(2),
    })
    .await;
}

async fn sockets_dropped_on_another_thread_while_receives_are_parked_close(cell: Cell) {
    let call = |a, n| receive(a, RecvBy::QUEUED[n % RecvBy::QUEUED.len()]);
    dropped_elsewhere(cell, 100, call, |random| Reached { polls: 6, turns: 1 + random.below(2) })
        .await;
}

async fn sockets_dropped_on_another_thread_while_sends_wait_close(cell: Cell) {
    let call = |a: UnixSeqpacket, n| {
        a.set_send_buffer_size(4096).unwrap();
        fill(&a);
        send(a, SendBy::QUEUED[n % SendBy::QUEUED.len()])
    };
    let reached = |random: &mut Random| Reached { polls: 1 + random.below(4) / 3, turns: 0 };
    dropped_elsewhere(cell, 300, call, reached).await;
}

async fn sockets_of_tasks_whose_receive_timed_out_close(cell: Cell) {
    for _ in rounds(50) {
        let mut peers = Vec::new();
        for n in 0..ROUND {
            let (a, peer) = cell.half();
            tokio::spawn(async move {
                for _ in 0..3 {
                    let wait = Duration::from_micros(n as u64 * 100);
                    let mut buffer = [0; 16];
                    let received = tokio::time::timeout(wait, a.recv(&mut buffer)).await;
                    assert!(received.is_err(), "no message was sent");
                }
            });
            peers.push(peer);
        }
        all_end(peers).await;
    }
}

async fn sockets_of_tasks_aborted_while_they_receive_close(cell: Cell) {
    for round in rounds(40) {
        let mut peers = Vec::new();
        let mut tasks = Vec::new();
        for n in 0..ROUND {
            let (a, peer) = cell.half();
            tasks.push(tokio::spawn(receive(a, RecvBy::QUEUED[n % RecvBy::QUEUED.len()])));
            peers.push(peer);
        }
        for _ in 0..round % 5 {
            tokio::task::yield_now().await;
        }
        tasks.iter().for_each(|task| task.abort());
        all_end(peers).await;
    }
}

/// What comes after the descriptor was taken is read from it, at once and whole.
fn is_plain(fd: OwnedFd, peer: &Peer, n: usize) -> OwnedFd {
    let text = format!("message {n}");
    peer.send(text.as_bytes());
    let fd = Peer::from(fd);
    assert_eq!(fd.recv(), text.as_bytes());
    fd.send(b"answer");
    assert_eq!(peer.recv(), b"answer");
    fd.fd
}

async fn a_descriptor_taken_after_a_dropped_receive_gets_the_next_message(cell: Cell) {
    let mut random = Random(11);
    for n in rounds(1500) {
        let (a, peer) = cell.half();
        let way = RecvBy::QUEUED[n % RecvBy::QUEUED.len()];
        let mut receive = task::spawn(call_variants::recv(way, &a, Room::TIGHT));
        starts_waiting(&mut receive);
        // On the way to where it waits: before the last poll, right after that, later.
        for _ in 0..random.below(6) {
            tokio::task::yield_now().await;
            if receive.is_woken() {
                starts_waiting(&mut receive);
            }
        }
        drop(receive);
        let fd = OwnedFd::from(a);
        if n % 2 == 0 {
            tokio::task::yield_now().await;
        }
        drop(is_plain(fd, &peer, n));
        all_end(vec![peer]).await;
    }
}

async fn descriptors_taken_elsewhere_after_dropped_receives_get_the_next_messages(cell: Cell) {
    let elsewhere = Elsewhere::new();
    let mut random = Random(23);
    for _ in rounds(300) {
        let (sockets, peers): (Vec<_>, Vec<_>) = (0..ROUND).map(|_| cell.half()).unzip();
        let sockets: Vec<_> = sockets.into_iter().map(Arc::new).collect();
        let calls = sockets.iter().cloned().zip(RecvBy::QUEUED.into_iter().cycle());
        let mut calls: Vec<Spawn<Call>> = calls
            .map(|(a, way)| {
                task::spawn::<Call>(Box::pin(async move {
                    drop(call_variants::recv(way, &a, Room::TIGHT).await);
                }))
            })
            .collect();
        tokio::task::yield_now().await;
        Reached { polls: 4 + random.below(3), turns: 0 }.by(&mut calls).await;
        let (tx, rx) = mpsc::channel();
        let works = sockets.into_iter().zip(calls).map(|(a, call)| {
            let tx = tx.clone();
            Box::new(move || {
                drop(call);
                tx.send(OwnedFd::from(Arc::into_inner(a).expect("the last"))).unwrap();
            }) as Work
        });
        elsewhere.does(works.collect()).await;
        drop(tx);
        peers.iter().for_each(|peer| peer.send(b"message"));
        // For whatever is left in a ring to take it.
        breathe().await;
        for fd in rx {
            assert_eq!(Peer::from(fd).recv(), b"message");
        }
        all_end(peers).await;
    }
    elsewhere.ends();
}

async fn a_descriptor_taken_after_a_dropped_send_sends_in_order(cell: Cell) {
    for n in 0..200 {
        let (a, peer) = cell.half();
        a.set_send_buffer_size(4096).unwrap();
        fill(&a);
        let way = SendBy::QUEUED[n % SendBy::QUEUED.len()];
        let mut send = task::spawn(call_variants::send(way, &a, b"dropped", &[]));
        starts_waiting(&mut send);
        for _ in 0..n % 5 {
            tokio::task::yield_now().await;
        }
        drop(send);
        let fd = Peer::from(OwnedFd::from(a));
        peer.drain();
        fd.send(b"from the descriptor");
        tokio::task::yield_now().await;
        // The dropped one came before, or never comes.
        let arrived = peer.arrived();
        assert_eq!(arrived.last().unwrap(), b"from the descriptor", "{arrived:?}");
        assert!(arrived.len() == 1 || arrived.len() == 2 && arrived[0] == b"dropped");
    }
}

const THREE: [&[u8]; 3] = [b"one", b"two", b"three"];

async fn sent_is_right_after_a_send_of_a_batch_is_dropped(cell: Cell) {
    for settled in [false, true] {
        let (a, peer) = cell.half();
        let filled = fill(&a);
        let mut batch = a.batch();
        batch.push(THREE[0]);
        let mut sending = task::spawn(batch.send());
        arm(&mut sending).await;
        // Takes what fills the queue, and not what comes next.
        (0..filled).for_each(|_| assert_eq!(peer.recv(), FILLER));
        if settled {
            breathe().await;
        }
        let early = peer.arrived();
        drop(sending);
        let sent = batch.sent();
        assert!(sent >= early.len(), "{} arrived, {sent} sent", early.len());
        // A waiting send may still go out. Then it is counted.
        breathe().await;
        let arrived = early.len() + peer.arrived().len();
        assert_eq!(batch.sent(), arrived);
        assert_eq!(soon(batch.send()).await.unwrap() + arrived, 1);
        assert_eq!((batch.sent(), peer.arrived().len()), (1, 1 - arrived));
    }
}

async fn skip_does_not_skip_a_message_that_went_out(cell: Cell) {
    for settled in [false, true] {
        for timeout in [false, true] {
            let (a, peer) = cell.half();
            let filled = fill(&a);
            let mut batch = a.batch();
            THREE.iter().for_each(|message| batch.push(message));
            let take = || (0..filled).for_each(|_| assert_eq!(peer.recv(), FILLER));
            if timeout {
                let wait = Duration::from_millis(2);
                assert!(tokio::time::timeout(wait, batch.send()).await.is_err());
                take();
            } else {
                let mut sending = task::spawn(batch.send());
                arm(&mut sending).await;
                take();
            }
            if settled {
                breathe().await;
            }
            batch.skip();
            soon(batch.send()).await.unwrap();
            breathe().await;
            let arrived = peer.arrived();
            assert_eq!((batch.len(), batch.sent()), (2, 2), "{arrived:?}");
            // One of them was skipped, and did not go out. The others did, once and in order.
            let without = |skipped| {
                let kept = THREE.iter().enumerate().filter(|(n, _)| *n != skipped);
                kept.map(|(_, message)| message.to_vec()).collect::<Vec<_>>()
            };
            assert!((0..3).any(|skipped| arrived == without(skipped)), "{arrived:?}");
        }
    }
}

async fn a_batch_dropped_in_a_race_with_a_draining_peer_has_counted_what_went_out(cell: Cell) {
    let messages: Vec<_> = (0..400u32).map(u32::to_ne_bytes).collect();
    for round in 0..30 {
        let (a, peer) = cell.half();
        a.set_send_buffer_size(4096).unwrap();
        let mut batch = a.batch();
        messages.iter().for_each(|message| batch.push(message));
        let reader = thread::spawn(move || {
            let mut count = 0;
            loop {
                match peer.try_recv() {
                    Ok(message) if message.is_empty() => return count,
                    Ok(message) => {
                        assert_eq!(message, u32::to_ne_bytes(count), "once and in order");
                        count += 1;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        thread::sleep(Duration::from_micros(20));
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        });
        let mut sent = 0;
        for _ in 0..1 + round % 3 {
            let _ = tokio::time::timeout(Duration::from_micros(round * 30), batch.send()).await;
            assert!(batch.sent() >= sent, "it went back");
            sent = batch.sent();
        }
        // Nothing waits any more when this is done.
        soon(batch.send()).await.unwrap();
        assert_eq!(batch.sent(), messages.len());
        drop(batch);
        drop(a);
        let count = soon(tokio::task::spawn_blocking(|| reader.join())).await.unwrap().unwrap();
        assert_eq!(count as usize, messages.len());
    }
}

const MOST: usize = 1024;

async fn a_receive_into_1024_owned_buffers_waits(cell: Cell) {
    let (a, peer) = cell.half();
    let message: Vec<_> = (0..MOST).map(|n| n as u8).collect();
    for waiting in [false, true] {
        let buffers: Vec<Vec<u8>> = (0..MOST).map(|_| Vec::with_capacity(1)).collect();
        let mut receive = task::spawn(a.recv_owned_vectored(buffers));
        if waiting {
            arm(&mut receive).await;
        }
        peer.send(&message);
        let (info, buffers) = soon(receive).await;
        assert_eq!(info.unwrap().bytes_read(), MOST, "waiting: {waiting}");
        assert_eq!(buffers.concat(), message);
    }
}

async fn a_receive_into_1024_borrowed_buffers_waits(cell: Cell) {
    let (a, peer) = cell.half();
    let message: Vec<_> = (0..MOST).map(|n| n as u8).collect();
    for waiting in [false, true] {
        let mut bytes = vec![0; MOST];
        let mut buffers: Vec<_> = bytes.chunks_mut(1).map(io::IoSliceMut::new).collect();
        let mut receive = task::spawn(a.recv_vectored(&mut buffers));
        if waiting {
            arm(&mut receive).await;
        }
        peer.send(&message);
        assert_eq!(soon(receive).await.unwrap(), MOST, "waiting: {waiting}");
        assert_eq!(bytes, message);
    }
}

async fn a_send_from_1024_buffers_waits(cell: Cell) {
    let message: Vec<_> = (0..MOST).map(|n| n as u8).collect();
    for owned in [false, true] {
        for waiting in [false, true] {
            let (a, peer) = cell.half();
            let parts: Vec<Vec<u8>> = message.chunks(1).map(<[u8]>::to_vec).collect();
            let mut send = task::spawn(async {
                if owned {
                    a.send_owned_vectored(parts).await.0
                } else {
                    let parts: Vec<_> = parts.iter().map(|part| io::IoSlice::new(part)).collect();
                    a.send_vectored(&parts).await
                }
            });
            if waiting {
                fill(&a);
                arm(&mut send).await;
                peer.drain();
            }
            assert_eq!(soon(send).await.unwrap(), MOST, "owned: {owned}, waiting: {waiting}");
            assert_eq!(peer.arrived(), [&message[..]]);
        }
    }
}

#[allow(unsafe_code, reason = "the counterpart of into_raw_fd")]
fn owned(number: std::os::fd::RawFd) -> OwnedFd {
    // SAFETY: it is open, and was given away just now.
    unsafe { OwnedFd::from_raw_fd(number) }
}

async fn into_raw_fd_without_a_free_descriptor_returns(cell: Cell) {
    for n in 0..40 {
        let (a, peer) = cell.half();
        let way = RecvBy::QUEUED[n % RecvBy::QUEUED.len()];
        let mut receive = task::spawn(call_variants::recv(way, &a, Room::TIGHT));
        starts_waiting(&mut receive);
        match n % 4 {
            0 => drop(receive),
            1 => {
                arm(&mut receive).await;
                drop(receive);
            }
            2 => {
                arm(&mut receive).await;
                std::mem::forget(receive);
            }
            _ => {
                arm(&mut receive).await;
                thread::scope(|scope| scope.spawn(|| drop(receive)).join()).unwrap();
            }
        }
        let full = Full::new();
        let fd = owned(a.into_raw_fd());
        is_plain(fd, &peer, n);
        drop(full);
        soon(peer.ended()).await;
    }
}

/// Address space in use, in bytes.
fn address_space() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc");
    let line = status.lines().find_map(|line| line.strip_prefix("VmSize:")).expect("VmSize");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// As `ulimit -v` does: 256 MiB more than are in use.
fn limit_address_space() {
    let before = getrlimit(Resource::As);
    let current = Some(address_space() + (256 << 20));
    setrlimit(Resource::As, Rlimit { current, maximum: before.maximum }).expect("a lower limit");
}

async fn waiting_receives_work_with_little_address_space(cell: Cell) {
    limit_address_space();
    let halves: Vec<_> = (0..64).map(|_| cell.half()).collect();
    for _ in 0..3 {
        let mut receives: Vec<_> = halves
            .iter()
            .zip(RecvBy::QUEUED.into_iter().cycle())
            .map(|((a, _), way)| task::spawn(call_variants::recv(way, a, Room::AMPLE)))
            .collect();
        arm_all(&mut receives).await;
        halves.iter().for_each(|(_, peer)| peer.send(b"message"));
        for receive in receives {
            assert_eq!(soon(receive).await.unwrap().bytes, b"message");
        }
        // A large one, too.
        let (a, peer) = &halves[0];
        let mut receive = task::spawn(a.recv_owned(Vec::with_capacity(100_000)));
        arm(&mut receive).await;
        peer.send(&vec![7; 100_000]);
        assert_eq!(soon(receive).await.0.unwrap().bytes_read(), 100_000);
    }
}

async fn waiting_sends_work_with_little_address_space(cell: Cell) {
    limit_address_space();
    let halves: Vec<_> = (0..32).map(|_| cell.half()).collect();
    for (a, _) in &halves {
        fill(a);
    }
    let mut sends: Vec<_> = halves
        .iter()
        .zip(SendBy::QUEUED.into_iter().cycle())
        .map(|((a, _), way)| task::spawn(call_variants::send(way, a, b"message", &[])))
        .collect();
    arm_all(&mut sends).await;
    halves.iter().for_each(|(_, peer)| peer.drain());
    for send in sends {
        assert_eq!(soon(send).await.unwrap(), 7);
    }
    assert!(halves.iter().all(|(_, peer)| peer.arrived() == [b"message"]));
    for (a, peer) in &halves {
        peer.send(b"message");
        assert_eq!(recv(a).await, b"message");
    }
}
