//! monoio's `UnixSeqpacket`, in monoio's runtime: one thread each, buffers owned by the operation.

use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use monoio::net::unix::{UnixSeqpacket, UnixSeqpacketListener};
use monoio::{IoUringDriver, Runtime, RuntimeBuilder};
use tempfile::TempDir;

use super::{Maker, Threads, Turn};
use crate::contestants::{Contestant, Rig};
use crate::libraries::whole;
use crate::rig::PAUSE;
use crate::work::{SMALL, Setting, Work};

pub struct Monoio;

type Here = Runtime<monoio::time::TimeDriver<IoUringDriver>>;

fn runtime() -> io::Result<Here> {
    RuntimeBuilder::<IoUringDriver>::new().enable_timer().build()
}

impl Contestant for Monoio {
    fn name(&self) -> &'static str {
        "monoio"
    }

    fn short(&self) -> &'static str {
        "monoio"
    }

    fn rig(&self, setting: Setting, work: Work) -> Result<Box<dyn Rig>, String> {
        if matches!(setting, Setting::MultiThread | Setting::BlockOn) {
            return Err("monoio has no runtime of several threads".into());
        }
        if setting == Setting::TwoBusy || work != work.plain() {
            return Err("without streams, batches, busy polling and sealed memory".into());
        }
        let apart = setting == Setting::TwoRuntimes;
        let rig = match work {
            Work::Echo { descriptor: true, .. } => {
                return Err("monoio passes no descriptors".into());
            }
            Work::Beside { .. } => {
                return Err("the busy tasks of this row are tokio's".into());
            }
            Work::Changing { .. } => {
                return Err("this row is about the switch between ways of submitting".into());
            }
            Work::Memory | Work::Pipe { .. } => return Err("not in rounds".into()),
            Work::Volleys { .. } | Work::Large { .. } => {
                return Err("the loop was not written for this".into());
            }
            Work::Echo { pairs, size, .. } => sides(apart, pairs, size, Role::Serve, Role::Ask),
            Work::Calls { pairs } => sides(apart, pairs, SMALL, Role::Serve, Role::Ask),
            Work::OneWay { .. } => sides(apart, 1, SMALL, Role::Receive, Role::Send),
            Work::Paced => sides(apart, 1, SMALL, Role::Serve, Role::AskWithPauses),
            Work::Flood { tasks } => Threads::new(tasks, vec![Box::new(move || flood(tasks))]),
            Work::Connect => Threads::new(1, vec![Box::new(connections)]),
        };
        Ok(Box::new(rig?))
    }

    fn idle(&self, count: usize, sample: &mut dyn FnMut()) -> Result<(), String> {
        idle(count, sample).map_err(|error| error.to_string())
    }
}

/// What a side does with each of its sockets.
#[derive(Clone, Copy)]
enum Role {
    Serve,
    Ask,
    AskWithPauses,
    Send,
    Receive,
}

/// As many messages as this round has.
async fn act(
    role: Role,
    socket: Rc<UnixSeqpacket>,
    count: usize,
    size: usize,
) -> io::Result<Vec<f64>> {
    let mut samples = Vec::new();
    let mut buffer = vec![7; size];
    for _ in 0..count {
        buffer = match role {
            Role::Serve => send(&socket, receive(&socket, buffer).await?).await?,
            Role::Ask => receive(&socket, send(&socket, buffer).await?).await?,
            Role::AskWithPauses => {
                std::thread::sleep(PAUSE);
                let start = Instant::now();
                let back = receive(&socket, send(&socket, buffer).await?).await?;
                samples.push(start.elapsed().as_nanos() as f64);
                back
            }
            Role::Send => send(&socket, buffer).await?,
            Role::Receive => receive(&socket, buffer).await?,
        };
    }
    Ok(samples)
}

async fn send(socket: &UnixSeqpacket, buffer: Vec<u8>) -> io::Result<Vec<u8>> {
    let (sent, returned) = socket.send(buffer).await;
    whole(sent?, &returned)?;
    Ok(returned)
}

async fn receive(socket: &UnixSeqpacket, buffer: Vec<u8>) -> io::Result<Vec<u8>> {
    let (received, filled) = socket.recv(buffer).await;
    whole(received?, &filled)?;
    Ok(filled)
}

type Sockets = Vec<(Role, Rc<UnixSeqpacket>)>;

/// A task for each socket in each round.
fn turn(mut runtime: Here, size: usize, sockets: Sockets) -> Turn {
    Box::new(move |count| {
        runtime.block_on(async {
            let tasks: Vec<_> = sockets
                .iter()
                .map(|(role, socket)| monoio::spawn(act(*role, socket.clone(), count, size)))
                .collect();
            let mut samples = Vec::new();
            for task in tasks {
                samples.extend(task.await?);
            }
            Ok(samples)
        })
    })
}

fn sides(
    apart: bool,
    pairs: usize,
    size: usize,
    server: Role,
    client: Role,
) -> Result<Threads, String> {
    if !apart {
        let maker = move || {
            let mut runtime = runtime()?;
            let sockets: io::Result<Vec<_>> = runtime.block_on(async {
                let made = (0..pairs).map(|_| UnixSeqpacket::pair());
                made.collect()
            });
            let sockets = sockets?.into_iter();
            let sockets = sockets.flat_map(|(a, b)| [(server, Rc::new(a)), (client, Rc::new(b))]);
            Ok(turn(runtime, size, sockets.collect()))
        };
        return Threads::new(pairs, vec![Box::new(maker)]);
    }
    // Pairs come registered with one runtime; connections have a side in each.
    let directory = Arc::new(TempDir::new().map_err(|error| error.to_string())?);
    let near = directory.clone();
    let makers: Vec<Maker> = vec![
        Box::new(move || {
            let mut runtime = runtime()?;
            let path = directory.path().join("socket");
            let sockets: io::Result<Sockets> = runtime.block_on(async {
                let listener = UnixSeqpacketListener::bind_with_backlog(path, 4096)?;
                let mut sockets = Vec::new();
                for _ in 0..pairs {
                    sockets.push((server, Rc::new(listener.accept().await?.0)));
                }
                Ok(sockets)
            });
            Ok(turn(runtime, size, sockets?))
        }),
        Box::new(move || {
            let mut runtime = runtime()?;
            let path = near.path().join("socket");
            let sockets: io::Result<Sockets> = runtime.block_on(async {
                let mut sockets = Vec::new();
                for _ in 0..pairs {
                    sockets.push((client, Rc::new(connect(&path).await?)));
                }
                Ok(sockets)
            });
            Ok(turn(runtime, size, sockets?))
        }),
    ];
    Threads::new(pairs, makers)
}

/// Once the other thread listens.
async fn connect(path: &Path) -> io::Result<UnixSeqpacket> {
    let begin = Instant::now();
    loop {
        match UnixSeqpacket::connect(path).await {
            Err(_) if begin.elapsed() < Duration::from_secs(5) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            result => return result,
        }
    }
}

/// Tasks that send on one socket, and one that receives all.
fn flood(tasks: usize) -> io::Result<Turn> {
    let mut runtime = runtime()?;
    let (receiver, sender) = runtime.block_on(async { UnixSeqpacket::pair() })?;
    let (receiver, sender) = (Rc::new(receiver), Rc::new(sender));
    Ok(Box::new(move |count| {
        runtime.block_on(async {
            let receiving =
                monoio::spawn(act(Role::Receive, receiver.clone(), count * tasks, SMALL));
            let sending: Vec<_> = (0..tasks)
                .map(|_| monoio::spawn(act(Role::Send, sender.clone(), count, SMALL)))
                .collect();
            for task in sending {
                task.await?;
            }
            receiving.await
        })
    }))
}

fn connections() -> io::Result<Turn> {
    let directory = TempDir::new()?;
    let path = directory.path().join("socket");
    let mut runtime = runtime()?;
    let listener = runtime.block_on(async { UnixSeqpacketListener::bind(&path) })?;
    let listener = Rc::new(listener);
    Ok(Box::new(move |count| {
        let (path, listener) = (directory.path().join("socket"), listener.clone());
        runtime.block_on(async move {
            for _ in 0..count {
                let (client, server) =
                    monoio::try_join!(UnixSeqpacket::connect(&path), listener.accept())?;
                drop((client, server));
            }
            Ok(Vec::new())
        })
    }))
}

fn idle(count: usize, sample: &mut dyn FnMut()) -> io::Result<()> {
    let mut runtime = runtime()?;
    runtime.block_on(async {
        let (a, b) = UnixSeqpacket::pair()?;
        receive(&b, send(&a, vec![7; SMALL]).await?).await?;
        sample();
        for _ in 0..count.div_ceil(2) {
            let (a, b) = UnixSeqpacket::pair()?;
            for socket in [a, b] {
                monoio::spawn(act(Role::Receive, Rc::new(socket), 1, SMALL));
            }
        }
        monoio::time::sleep(Duration::from_millis(200)).await;
        sample();
        Ok(())
    })
}
