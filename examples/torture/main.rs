//! Torture: a soak between two processes in which every message is accounted for.
//!
//! 64 connections live short lives one after the other, each by a plan of its own (`plan`, `life`). Both
//! ends send and receive at once (`send`, `receive`, `arrive`), and note what happened (`history`).
//!
//! | what else they do | where |
//! |---|---|
//! | drop calls at random polls, or leave them alone after one | `line` |
//! | drop sockets and calls on a thread outside of all runtimes | `elsewhere` |
//! | go by readiness and peeks, and wait for them beside all calls | `watch` |
//! | receive streams, which are dropped with messages left, and batches | `stream` |
//! | change options | `toggle` |
//! | take the descriptor out of the socket, and make another socket of it | `handover` |
//!
//! Meanwhile runtimes end, threads end, descriptors run out, and the peer is killed (`workers`,
//! `descriptors`, here). When both ends of a life are over, this process compares what one sent with what
//! the other received. At the end nothing may be left over.
//!
//! ```text
//! cargo run --release --example torture -- --minutes 1 --backend uring --runtime both
//! ```

use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt};
use tokio_seqpacket::{Options, UringSupport};

use control::{Control, Frame};
use descriptors::{Limit, open_fds, resident};
use history::{Record, judge};
use plan::{Backend, End, Plan};
use report::{Count, Counts};
use side::Shared;
use workers::{Flavor, Workers};

mod arrive;
mod control;
mod descriptors;
mod elsewhere;
mod handover;
mod history;
mod life;
mod line;
mod message;
mod plan;
mod receive;
mod report;
mod send;
mod side;
mod stream;
mod toggle;
mod watch;
mod workers;

const SLOTS: u16 = 64;

/// A time limit, in ticks of a thread that does little else. Ticks are counted, so that a machine that stalls
/// does not fail the run.
const TICK: Duration = Duration::from_millis(50);
const SOON: u32 = 100;

/// Memory at the end beyond that at the beginning, in KiB.
const MEMORY: u64 = 128 << 10;

struct Arguments {
    time: Duration,
    seed: u64,
    backend: Backend,
    flavor: Flavor,
    peer: bool,
}

const USAGE: &str = "torture [--minutes M] [--seed S] [--backend auto|epoll|uring] \
                     [--runtime current_thread|multi_thread|both]";

fn arguments() -> Option<Arguments> {
    let mut arguments = Arguments {
        time: Duration::from_secs(60),
        seed: fastrand::u64(..1 << 32),
        backend: Backend::Auto,
        flavor: Flavor::Both,
        peer: false,
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        if word == "--peer" {
            arguments.peer = true;
            continue;
        }
        let value = words.next()?;
        match (word.as_str(), value.as_str()) {
            ("--minutes", minutes) => {
                arguments.time =
                    Duration::try_from_secs_f64(60.0 * minutes.parse::<f64>().ok()?).ok()?;
            }
            ("--seed", seed) => arguments.seed = seed.parse().ok()?,
            ("--backend", "auto") => arguments.backend = Backend::Auto,
            ("--backend", "epoll") => arguments.backend = Backend::Epoll,
            ("--backend", "uring") => arguments.backend = Backend::Uring,
            ("--runtime", "current_thread") => arguments.flavor = Flavor::CurrentThread,
            ("--runtime", "multi_thread") => arguments.flavor = Flavor::MultiThread,
            ("--runtime", "both") => arguments.flavor = Flavor::Both,
            _ => return None,
        }
    }
    Some(arguments)
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    Limit::raise();
    let failed = if arguments.peer {
        peer(&arguments);
        return ExitCode::SUCCESS;
    } else {
        Torture::run(&arguments)
    };
    match failed {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            println!("\nFAILED with --seed {}\n{failure}", arguments.seed);
            ExitCode::FAILURE
        }
    }
}

/// A process with all that stays for good: its open descriptors and its memory are the base line.
struct Base {
    fds: usize,
    resident: u64,
}

impl Base {
    fn new() -> Self {
        warm_up();
        Self { fds: open_fds(), resident: resident() }
    }

    /// When all is over: what is there now.
    ///
    /// # Errors
    /// More than the base line, and it does not go away.
    fn compare(&self, shared: &Shared) -> Result<[u64; 4], String> {
        for _ in 0..SOON + SOON / 4 {
            if shared.pipes.is_empty() && open_fds() <= self.fds {
                break;
            }
            thread::sleep(TICK);
        }
        let (fds, resident) = (open_fds(), resident());
        if fds > self.fds {
            let links = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
            let open: Vec<_> =
                links.filter_map(|link| std::fs::read_link(link.path()).ok()).collect();
            return Err(format!(
                "{fds} descriptors are open at the end, {} were at the beginning: {open:?}",
                self.fds
            ));
        }
        if resident > self.resident + MEMORY {
            return Err(format!("{resident} KiB at the end, {} at the beginning", self.resident));
        }
        Ok([self.fds as u64, fds as u64, self.resident, resident])
    }
}

fn warm_up() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let (a, b) = Options::new().pair().expect("a pair");
        a.send(b"warm").await.expect("capacity for four bytes");
        b.recv(&mut [0; 8]).await.expect("a message");
    });
}

/// Ends pipes, squeezes descriptors.
fn keep_house(shared: Arc<Shared>, mut rng: Rng) {
    loop {
        thread::sleep(TICK);
        if let Err(failure) = shared.pipes.check(SOON) {
            shared.fail(failure);
        }
        if rng.u8(..20) == 0 {
            let time = Duration::from_millis(rng.u64(1..15));
            shared.limit.squeeze(rng.u64(..6), time, shared.begin);
            shared.counters.add(Count::Squeezes, 1);
        }
    }
}

/// A panic is a failure, also in a task or a thread that is never joined.
fn report_panics(shared: &Arc<Shared>) {
    let (shared, print) = (shared.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        print(panic);
        shared.fail(format!("a panic: {panic}"));
    }));
}

/// The other process. Its control channel is its standard input.
fn peer(arguments: &Arguments) {
    let fd = std::io::stdin().as_fd().try_clone_to_owned().expect("a duplicate of standard input");
    let control = Control::new(fd);
    let base = Base::new();
    let (outbox, mail) = mpsc::channel();
    let shared = Shared::new(End::Peer, outbox).expect("files to be passed");
    let base = Base { fds: open_fds(), ..base };
    report_panics(&shared);
    let mut rng = Rng::with_seed(arguments.seed);
    let workers = Workers::start(&shared, Flavor::Both, &mut rng);
    let housekeeper = (shared.clone(), rng.fork());
    thread::spawn(move || keep_house(housekeeper.0, housekeeper.1));
    let (counted, mailer) = (shared.clone(), control.clone());
    thread::spawn(move || {
        loop {
            let frame = match mail.recv_timeout(TICK * 4) {
                Ok(frame) => frame,
                Err(_) => Frame::Counts(Box::new(counted.counters.read())),
            };
            if mailer.send(&frame).is_err() {
                std::process::exit(1);
            }
        }
    });
    loop {
        match control.receive(&shared.limit) {
            Some(Frame::Live(plan, fd)) => workers.assign(*plan, fd),
            Some(Frame::Finish) => break,
            Some(_) => {}
            // There is no process left to report to.
            None => std::process::exit(1),
        }
    }
    workers.finish();
    let _ = shared.outbox.send(match base.compare(&shared) {
        Ok(done) => Frame::Done(done),
        Err(failure) => Frame::Failure(format!("in the peer: {failure}")),
    });
    // Main goes first, or kills.
    while control.receive(&shared.limit).is_some() {}
}

enum Event {
    Frame(Frame),
    /// From the peer of this number.
    Peer(Frame),
    PeerGone(u64),
}

/// What the judge knows of a slot.
#[derive(Default)]
struct Life {
    main: Option<Record>,
    peer: Option<Record>,
    peer_is_lost: bool,
    ticks: u32,
    patience: u32,
}

struct Torture<'a> {
    arguments: &'a Arguments,
    rng: Rng,
    shared: Arc<Shared>,
    events: mpsc::Receiver<Event>,
    to_events: mpsc::Sender<Event>,
    workers: Option<Workers>,
    peer: Option<(Child, Control)>,
    /// Of the peer, counted from 1.
    number: u64,
    lives: Vec<Option<Life>>,
    /// Lives of each slot so far.
    count: u64,
    kills: u64,
    /// What peers that are gone have counted.
    counted: Counts,
    counts: Counts,
    done: Option<[u64; 4]>,
}

impl<'a> Torture<'a> {
    fn run(arguments: &'a Arguments) -> Result<(), String> {
        let base = Base::new();
        let (to_events, events) = mpsc::channel();
        let (outbox, mail) = mpsc::channel();
        let shared = Shared::new(End::Main, outbox).map_err(|error| error.to_string())?;
        let base = Base { fds: open_fds(), ..base };
        report_panics(&shared);
        let forward = to_events.clone();
        thread::spawn(move || {
            mail.into_iter().try_for_each(|frame| forward.send(Event::Frame(frame)))
        });
        let mut rng = Rng::with_seed(arguments.seed);
        let workers = Workers::start(&shared, arguments.flavor, &mut rng);
        let housekeeper = (shared.clone(), rng.fork());
        thread::spawn(move || keep_house(housekeeper.0, housekeeper.1));
        let mut torture = Self {
            arguments,
            rng,
            shared,
            events,
            to_events,
            workers: Some(workers),
            peer: None,
            number: 0,
            lives: (0..SLOTS).map(|_| None).collect(),
            count: 0,
            kills: 0,
            counted: Counts::default(),
            counts: Counts::default(),
            done: None,
        };
        println!("seed {}, {:?} s", arguments.seed, arguments.time.as_secs_f64());
        let result = torture.soak().and_then(|()| torture.end(&base));
        if let Some((mut peer, _)) = torture.peer.take() {
            let _ = peer.kill();
            let _ = peer.wait();
        }
        let counts = torture.counts();
        report::summary(counts, torture.count, torture.kills);
        println!("seed {}", arguments.seed);
        result
    }

    fn soak(&mut self) -> Result<(), String> {
        self.start_peer()?;
        let begin = Instant::now();
        let kill_every = (self.arguments.time / 2).min(Duration::from_secs(15));
        let (mut kill_at, mut shown) = (begin + kill_every, begin);
        let mut tick = begin + TICK;
        loop {
            let over = begin.elapsed() >= self.arguments.time;
            if over && self.lives.iter().all(Option::is_none) {
                return Ok(());
            }
            for slot in 0..SLOTS {
                if !over && self.peer.is_some() && self.lives[usize::from(slot)].is_none() {
                    self.begin(slot)?;
                }
            }
            if !over && Instant::now() >= kill_at {
                kill_at += kill_every;
                self.kill()?;
            }
            match self.events.recv_timeout(tick.saturating_duration_since(Instant::now())) {
                Ok(event) => self.handle(event)?,
                Err(_) => {
                    tick = Instant::now() + TICK;
                    self.tick()?;
                }
            }
            if shown.elapsed() >= Duration::from_secs(1) {
                shown = Instant::now();
                report::progress(begin.elapsed(), self.counts(), self.count);
            }
        }
    }

    /// All has been compared. Both processes must be as they were.
    fn end(&mut self, base: &Base) -> Result<(), String> {
        if let Some((_, control)) = &self.peer {
            control.send(&Frame::Finish).map_err(|error| error.to_string())?;
        }
        if let Some(workers) = self.workers.take() {
            workers.finish();
        }
        let mut ticks = 0;
        while self.done.is_none() {
            match self.events.recv_timeout(TICK) {
                Ok(event) => self.handle(event)?,
                Err(_) if ticks > 3 * SOON => return Err("the peer does not end".into()),
                Err(_) => ticks += 1,
            }
        }
        if let Some((mut peer, control)) = self.peer.take() {
            drop(control);
            let _ = peer.kill();
            let _ = peer.wait();
            self.counted = self.counted.plus(self.counts);
            self.counts = Counts::default();
        }
        let of_main = base.compare(&self.shared)?;
        while let Ok(event) = self.events.try_recv() {
            self.handle(event)?;
        }
        for (of, [fds, fds_now, memory, memory_now]) in
            [("main", of_main), ("peer", self.done.unwrap_or_default())]
        {
            println!(
                "{of}: {fds} open descriptors at the beginning, {fds_now} at the end; \
                 {memory} KiB, {memory_now} KiB"
            );
        }
        Ok(())
    }

    fn counts(&self) -> Counts {
        self.shared.counters.read().plus(self.counted).plus(self.counts)
    }

    fn start_peer(&mut self) -> Result<(), String> {
        let _need = self.shared.limit.need();
        let explain = |error: std::io::Error| format!("the peer cannot be started: {error}");
        let (control, theirs) = control::pair().map_err(explain)?;
        self.number += 1;
        let program = std::env::current_exe().map_err(explain)?;
        let peer = Command::new(program)
            .args(["--peer", "--seed", &self.rng.u64(..1 << 32).to_string()])
            .stdin(Stdio::from(theirs))
            .spawn()
            .map_err(explain)?;
        let (number, events) = (self.number, self.to_events.clone());
        let (reader, shared) = (control.clone(), self.shared.clone());
        thread::spawn(move || {
            while let Some(frame) = reader.receive(&shared.limit) {
                if events.send(Event::Peer(frame)).is_err() {
                    return;
                }
            }
            let _ = events.send(Event::PeerGone(number));
        });
        self.peer = Some((peer, control));
        Ok(())
    }

    fn kill(&mut self) -> Result<(), String> {
        let Some((mut peer, _)) = self.peer.take() else { return Ok(()) };
        self.kills += 1;
        peer.kill().and_then(|()| peer.wait()).map_err(|error| error.to_string())?;
        Ok(())
    }

    /// A connection begins to live.
    fn begin(&mut self, slot: u16) -> Result<(), String> {
        let uring = matches!(tokio_seqpacket::probe(), UringSupport::Available { .. });
        let plan = Plan::draw(slot, self.count, self.arguments.backend, uring, &mut self.rng);
        let patience = SOON + (plan.millis / TICK.as_millis() as u64) as u32;
        let (ours, theirs) = {
            let _need = self.shared.limit.need();
            connection(&plan).map_err(|error| format!("no connection can be made: {error}"))?
        };
        let Some((_, control)) = &self.peer else { return Ok(()) };
        self.count += 1;
        self.lives[usize::from(slot)] = Some(Life { patience, ..Life::default() });
        // The end of a peer is reported separately.
        let _ = control.send(&Frame::Live(Box::new(plan.clone()), theirs));
        if let Some(workers) = &self.workers {
            workers.assign(plan, ours);
        }
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Frame(Frame::Failure(failure)) | Event::Peer(Frame::Failure(failure)) => {
                return Err(failure);
            }
            Event::Frame(Frame::Record(record)) | Event::Peer(Frame::Record(record)) => {
                return self.hand_in(*record);
            }
            Event::Peer(Frame::Counts(counts)) => self.counts = *counts,
            Event::Peer(Frame::Done(done)) => self.done = Some(done),
            Event::PeerGone(number) if number == self.number && self.peer.is_none() => {
                self.counted = self.counted.plus(self.counts);
                self.counts = Counts::default();
                for slot in 0..SLOTS {
                    if let Some(life) = &mut self.lives[usize::from(slot)] {
                        life.peer_is_lost = true;
                        self.compare(slot)?;
                    }
                }
                if self.done.is_none() {
                    self.start_peer()?;
                }
            }
            Event::PeerGone(number) if number == self.number => {
                return Err("the peer died by itself".into());
            }
            Event::PeerGone(_) | Event::Frame(_) | Event::Peer(_) => {}
        }
        Ok(())
    }

    fn hand_in(&mut self, record: Record) -> Result<(), String> {
        let slot = record.slot;
        let Some(life) = &mut self.lives[usize::from(slot)] else { return Ok(()) };
        match record.end {
            End::Main => life.main = Some(record),
            End::Peer => life.peer = Some(record),
        }
        self.compare(slot)
    }

    /// Both ends are over, as far as they will ever be.
    fn compare(&mut self, slot: u16) -> Result<(), String> {
        let slot = usize::from(slot);
        match &self.lives[slot] {
            Some(Life { main: Some(main), peer: Some(peer), .. }) => {
                judge(main, peer)?;
                judge(peer, main)?;
            }
            Some(Life { main: Some(_), peer_is_lost: true, .. }) => {}
            _ => return Ok(()),
        }
        self.lives[slot] = None;
        Ok(())
    }

    fn tick(&mut self) -> Result<(), String> {
        for (slot, life) in self.lives.iter_mut().enumerate() {
            let Some(life) = life else { continue };
            life.ticks += 1;
            if life.ticks <= life.patience {
                continue;
            }
            let sides = self.shared.sides.lock().unwrap();
            let ours = sides.get(&(slot as u16)).and_then(|side| side.upgrade());
            let describe = |record: &Record| record.describe();
            let ours = match (&life.main, ours) {
                (Some(record), _) => format!("main is over: {}", describe(record)),
                (None, Some(side)) => {
                    format!("{:?} {}", side.plan, side.book.record().describe())
                }
                (None, None) => "main has not begun".into(),
            };
            let theirs = life.peer.as_ref().map_or("the peer is not over".into(), describe);
            return Err(format!(
                "connection {slot} stands still for {:?}\n  {ours}\n  {theirs}",
                TICK * SOON
            ));
        }
        Ok(())
    }
}

fn connection(plan: &Plan) -> rustix::io::Result<(OwnedFd, OwnedFd)> {
    let (a, b) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    for fd in [&a, &b] {
        if plan.small {
            sockopt::set_socket_send_buffer_size(fd, 0)?;
        } else if plan.slot % 16 == 1 {
            sockopt::set_socket_send_buffer_size(fd, 1 << 20)?;
        }
    }
    Ok((a, b))
}
