//! Echo round trips, both backends against tokio-seqpacket 0.8.2.
//!
//! Every contestant of a row runs in the same process, in rounds that alternate, so that a row's
//! ratios compare like with like on a noisy machine: a ratio is the median of the ratios of
//! neighbouring rounds, and above 1 means faster than tokio-seqpacket.
//!
//! `cargo bench --bench round_trip -- [--quick] [--only CONTESTANT] [ROW]`

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio_seqpacket::{Backend, Options, UnixSeqpacket};

const MESSAGE: usize = 64;

/// One library and way of calling it.
trait Contestant: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    fn pair(&self) -> Box<dyn Pair>;
}

/// Two connected sockets inside their runtime.
trait Pair: Send {
    /// Split into a server, which echoes until its peer goes, and a client.
    fn split(self: Box<Self>) -> (Task, Box<dyn Client>);
    /// A flood: the receiving task, and a send of one message that can be shared.
    fn flood(self: Box<Self>) -> (Task, Arc<dyn Sender>);
}

type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;
type Trips = std::pin::Pin<Box<dyn Future<Output = Box<dyn Client>> + Send>>;

trait Client: Send {
    /// Make this many round trips, and come back.
    fn trips(self: Box<Self>, count: usize) -> Trips;
}

trait Sender: Send + Sync {
    fn send(self: Arc<Self>, count: usize) -> Task;
}

struct Borrowed<S>(S, S);
struct BorrowedClient<S>(S);

macro_rules! borrowed {
    ($socket:ty) => {
        impl Pair for Borrowed<$socket> {
            fn split(self: Box<Self>) -> (Task, Box<dyn Client>) {
                let Borrowed(server, client) = *self;
                let server = async move {
                    let mut buffer = [0; MESSAGE];
                    while let Ok(len @ 1..) = server.recv(&mut buffer).await {
                        server.send(&buffer[..len]).await.unwrap();
                    }
                };
                (Box::pin(server), Box::new(BorrowedClient(client)))
            }

            fn flood(self: Box<Self>) -> (Task, Arc<dyn Sender>) {
                let Borrowed(receiver, sender) = *self;
                let receiver = async move {
                    let mut buffer = [0; MESSAGE];
                    while let Ok(1..) = receiver.recv(&mut buffer).await {}
                };
                (Box::pin(receiver), Arc::new(BorrowedClient(sender)))
            }
        }

        impl Client for BorrowedClient<$socket> {
            fn trips(self: Box<Self>, count: usize) -> Trips {
                Box::pin(async move {
                    let mut buffer = [7; MESSAGE];
                    for _ in 0..count {
                        self.0.send(&buffer).await.unwrap();
                        assert_eq!(self.0.recv(&mut buffer).await.unwrap(), MESSAGE);
                    }
                    self as Box<dyn Client>
                })
            }
        }

        impl Sender for BorrowedClient<$socket> {
            fn send(self: Arc<Self>, count: usize) -> Task {
                Box::pin(async move {
                    for _ in 0..count {
                        self.0.send(&[7; MESSAGE]).await.unwrap();
                    }
                })
            }
        }
    };
}

borrowed!(UnixSeqpacket);
borrowed!(tokio_seqpacket_upstream::UnixSeqpacket);
borrowed!(Budgeted);

/// tokio-seqpacket within tokio's cooperative budget, as tokio's own sockets and this library are: its
/// calls never yield by themselves, so that a busy task keeps its worker from all others.
struct Budgeted(tokio_seqpacket_upstream::UnixSeqpacket);

impl Budgeted {
    async fn send(&self, message: &[u8]) -> std::io::Result<usize> {
        tokio::task::coop::cooperative(self.0.send(message)).await
    }

    async fn recv(&self, buffer: &mut [u8]) -> std::io::Result<usize> {
        tokio::task::coop::cooperative(self.0.recv(buffer)).await
    }
}

struct Owned(UnixSeqpacket, UnixSeqpacket);
struct OwnedClient(UnixSeqpacket);

impl Pair for Owned {
    fn split(self: Box<Self>) -> (Task, Box<dyn Client>) {
        let Owned(server, client) = *self;
        let server = async move {
            let mut buffer = Vec::with_capacity(MESSAGE);
            loop {
                buffer.clear();
                let (received, filled) = server.recv_owned(buffer).await;
                match received {
                    Ok(info) if info.bytes_read() > 0 => {}
                    _ => return,
                }
                let (sent, returned) = server.send_owned(filled).await;
                sent.unwrap();
                buffer = returned;
            }
        };
        (Box::pin(server), Box::new(OwnedClient(client)))
    }

    fn flood(self: Box<Self>) -> (Task, Arc<dyn Sender>) {
        let Owned(receiver, sender) = *self;
        let receiver = async move {
            let mut buffer = Vec::with_capacity(MESSAGE);
            loop {
                let (received, returned) = receiver.recv_owned(buffer).await;
                match received {
                    Ok(info) if info.bytes_read() > 0 => buffer = returned,
                    _ => return,
                }
            }
        };
        (Box::pin(receiver), Arc::new(OwnedClient(sender)))
    }
}

impl Client for OwnedClient {
    fn trips(self: Box<Self>, count: usize) -> Trips {
        Box::pin(async move {
            let mut buffer = vec![7; MESSAGE];
            for _ in 0..count {
                let (sent, mut returned) = self.0.send_owned(buffer).await;
                sent.unwrap();
                returned.clear();
                let (received, filled) = self.0.recv_owned(returned).await;
                assert_eq!(received.unwrap().bytes_read(), MESSAGE);
                buffer = filled;
            }
            self as Box<dyn Client>
        })
    }
}

impl Sender for OwnedClient {
    fn send(self: Arc<Self>, count: usize) -> Task {
        Box::pin(async move {
            let mut buffer = vec![7; MESSAGE];
            for _ in 0..count {
                let (sent, returned) = self.0.send_owned(buffer).await;
                sent.unwrap();
                buffer = returned;
            }
        })
    }
}

struct Upstream {
    budgeted: bool,
}

impl Contestant for Upstream {
    fn name(&self) -> &'static str {
        if self.budgeted { "the same, budgeted" } else { "tokio-seqpacket 0.8.2" }
    }

    fn pair(&self) -> Box<dyn Pair> {
        let (a, b) = tokio_seqpacket_upstream::UnixSeqpacket::pair().unwrap();
        if self.budgeted {
            Box::new(Borrowed(Budgeted(a), Budgeted(b)))
        } else {
            Box::new(Borrowed(a, b))
        }
    }
}

struct Ours {
    name: &'static str,
    backend: Backend,
    owned: bool,
}

impl Contestant for Ours {
    fn name(&self) -> &'static str {
        self.name
    }

    fn pair(&self) -> Box<dyn Pair> {
        let (a, b) = Options::new().backend(self.backend).pair().unwrap();
        if self.owned { Box::new(Owned(a, b)) } else { Box::new(Borrowed(a, b)) }
    }
}

fn contestants() -> Vec<Box<dyn Contestant>> {
    let mut all: Vec<Box<dyn Contestant>> =
        vec![Box::new(Upstream { budgeted: false }), Box::new(Upstream { budgeted: true })];
    for (backend, owned, name) in [
        (Backend::Epoll, false, "epoll, borrowed"),
        (Backend::Epoll, true, "epoll, owned"),
        (Backend::Uring, false, "io_uring, borrowed"),
        (Backend::Uring, true, "io_uring, owned"),
    ] {
        let runtime = Flavor::CurrentThread.build();
        match runtime.block_on(async { Options::new().backend(backend).pair() }) {
            Ok(_) => all.push(Box::new(Ours { name, backend, owned })),
            Err(error) => println!("{name}: skipped: {error}"),
        }
    }
    all
}

#[derive(Clone, Copy, PartialEq)]
enum Flavor {
    CurrentThread,
    MultiThread,
}

impl Flavor {
    fn build(self) -> Runtime {
        match self {
            Self::CurrentThread => Builder::new_current_thread().enable_all().build(),
            Self::MultiThread => Builder::new_multi_thread().worker_threads(2).enable_all().build(),
        }
        .unwrap()
    }

    fn name(self) -> &'static str {
        match self {
            Self::CurrentThread => "current_thread",
            Self::MultiThread => "multi_thread",
        }
    }
}

#[derive(Clone, Copy)]
enum Work {
    /// Clients and servers are tasks.
    Echo { pairs: usize },
    /// The one client runs in block_on, on a thread that is no worker.
    BlockOn,
    /// Tasks that send on one socket.
    Flood { tasks: usize },
}

/// A contestant's runtime and sockets, kept through all rounds.
struct Rig {
    runtime: Runtime,
    clients: Vec<Box<dyn Client>>,
    sender: Option<Arc<dyn Sender>>,
}

impl Rig {
    fn new(contestant: &dyn Contestant, flavor: Flavor, work: Work) -> Self {
        let runtime = flavor.build();
        let guard = runtime.enter();
        let (mut clients, mut sender) = (Vec::new(), None);
        match work {
            Work::Flood { .. } => {
                let (receiver, shared) = contestant.pair().flood();
                runtime.spawn(receiver);
                sender = Some(shared);
            }
            Work::Echo { .. } | Work::BlockOn => {
                let pairs = if let Work::Echo { pairs } = work { pairs } else { 1 };
                for _ in 0..pairs {
                    let (server, client) = contestant.pair().split();
                    runtime.spawn(server);
                    clients.push(client);
                }
            }
        }
        drop(guard);
        Self { runtime, clients, sender }
    }

    /// Make `each` trips (or sends) per client; the time that took, and how many there were.
    fn round(&mut self, work: Work, each: usize) -> (Duration, usize) {
        let clients = std::mem::take(&mut self.clients);
        match work {
            Work::BlockOn => {
                let client = clients.into_iter().next().unwrap();
                let start = Instant::now();
                let client = self.runtime.block_on(client.trips(each));
                let took = start.elapsed();
                self.clients.push(client);
                (took, each)
            }
            Work::Echo { pairs } => {
                let start = Instant::now();
                self.clients = self.runtime.block_on(async {
                    let tasks: Vec<_> = clients
                        .into_iter()
                        .map(|client| tokio::spawn(client.trips(each)))
                        .collect();
                    let mut back = Vec::new();
                    for task in tasks {
                        back.push(task.await.unwrap());
                    }
                    back
                });
                (start.elapsed(), each * pairs)
            }
            Work::Flood { tasks } => {
                let sender = self.sender.as_ref().unwrap();
                let start = Instant::now();
                self.runtime.block_on(async {
                    let tasks: Vec<_> =
                        (0..tasks).map(|_| tokio::spawn(sender.clone().send(each))).collect();
                    for task in tasks {
                        task.await.unwrap();
                    }
                });
                (start.elapsed(), each * tasks)
            }
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let mut quick = false;
    let (mut filter, mut only) = (None, None);
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => {}
            "--quick" => quick = true,
            "--only" => only = arguments.next(),
            other => filter = Some(other.to_owned()),
        }
    }
    let (rounds, slice) =
        if quick { (3, Duration::from_millis(5)) } else { (15, Duration::from_millis(40)) };
    let mut contestants = contestants();
    if let Some(only) = only {
        contestants.retain(|contestant| contestant.name().contains(&only));
    }
    println!("{}", tokio_seqpacket::probe());
    println!(
        "{rounds} rounds of {slice:?} each; ns per round trip, ratio to tokio-seqpacket (higher is faster)\n"
    );

    let mut rows = Vec::new();
    for flavor in [Flavor::CurrentThread, Flavor::MultiThread] {
        for pairs in [1, 4, 16, 128, 1024] {
            let name = format!("echo, {}, {pairs} pairs", flavor.name());
            rows.push((name, flavor, Work::Echo { pairs }));
        }
    }
    rows.push(("echo, client in block_on, 1 pair".into(), Flavor::MultiThread, Work::BlockOn));
    for flavor in [Flavor::CurrentThread, Flavor::MultiThread] {
        let name = format!("64 tasks send on one socket, {}", flavor.name());
        rows.push((name, flavor, Work::Flood { tasks: 64 }));
    }

    for (name, flavor, work) in rows {
        if filter.as_ref().is_some_and(|filter| !name.contains(filter)) {
            continue;
        }
        let mut rigs: Vec<_> =
            contestants.iter().map(|contestant| Rig::new(&**contestant, flavor, work)).collect();
        // Warm up, then find out how many trips of the first contestant fit into a slice; all of
        // them make as many, for a round's start and end cost something too.
        for rig in &mut rigs {
            rig.round(work, 16);
        }
        let mut each = 16;
        let each = loop {
            let (took, _) = rigs[0].round(work, each);
            if took >= slice / 4 || each > 1 << 20 {
                let fits = slice.as_secs_f64() / took.as_secs_f64() * each as f64;
                break (fits as usize).max(8);
            }
            each *= 2;
        };
        let mut nanos = vec![Vec::new(); rigs.len()];
        for round in 0..rounds {
            for at in 0..rigs.len() {
                let at = (at + round) % rigs.len();
                let (took, trips) = rigs[at].round(work, each);
                nanos[at].push(took.as_nanos() as f64 / trips as f64);
            }
        }
        println!("{name}");
        for (contestant, mine) in contestants.iter().zip(&nanos) {
            let ratios = nanos[0].iter().zip(mine).map(|(theirs, mine)| theirs / mine).collect();
            let (nanos, ratio) = (median(mine.clone()), median(ratios));
            println!("  {:24} {nanos:9.0} ns   {ratio:5.2}", contestant.name());
        }
    }
}
