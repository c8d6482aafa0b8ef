//! Round trips over many pairs.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Instant;

use super::{Runtimes, all};
use crate::contestants::{Rig, Round};
use crate::libraries::{Library, Socket, truncated};
use crate::work::{SMALL, Setting};

pub struct Echo<S> {
    clients: Vec<Client<S>>,
    runtimes: Runtimes,
}

struct Client<S> {
    socket: S,
    message: Vec<u8>,
    descriptor: Option<Arc<File>>,
}

impl<S: Socket> Echo<S> {
    pub fn new<L: Library<Socket = S>>(
        library: L,
        runtimes: Runtimes,
        pairs: usize,
        size: usize,
        descriptor: bool,
    ) -> io::Result<Self> {
        let file = Arc::new(File::open("/dev/null")?);
        let mut clients = Vec::with_capacity(pairs);
        for _ in 0..pairs {
            let (server, socket) = runtimes.pair(&library)?;
            if descriptor {
                runtimes.servers().spawn(serve_descriptors(server, size));
            } else {
                runtimes.servers().spawn(serve(server, size));
            }
            let descriptor = descriptor.then(|| file.clone());
            clients.push(Client { socket, message: vec![7; size], descriptor });
        }
        Ok(Self { clients, runtimes })
    }
}

/// Until the peer goes.
pub async fn serve<S: Socket>(mut socket: S, size: usize) -> io::Result<()> {
    let mut buffer = vec![0; size];
    while socket.recv(&mut buffer).await? > 0 {
        socket.send(&mut buffer).await?;
    }
    Ok(())
}

async fn serve_descriptors<S: Socket>(mut socket: S, size: usize) -> io::Result<()> {
    let mut buffer = vec![0; size];
    while let Some(descriptor) = socket.recv_descriptor(&mut buffer).await? {
        socket.send_descriptor(&mut buffer, descriptor.as_fd()).await?;
    }
    Ok(())
}

impl<S: Socket> Client<S> {
    async fn trips(mut self, count: usize) -> io::Result<Self> {
        for _ in 0..count {
            if let Some(file) = &self.descriptor {
                self.socket.send_descriptor(&mut self.message, file.as_fd()).await?;
                let back = self.socket.recv_descriptor(&mut self.message).await?;
                back.ok_or_else(|| io::Error::other("a descriptor was lost"))?;
            } else {
                self.socket.send(&mut self.message).await?;
                if self.socket.recv(&mut self.message).await? != self.message.len() {
                    return Err(truncated());
                }
            }
        }
        Ok(self)
    }
}

impl<S: Socket> Rig for Echo<S> {
    fn round(&mut self, each: usize) -> Result<Round, String> {
        let clients = std::mem::take(&mut self.clients);
        let operations = each * clients.len();
        let in_block_on = self.runtimes.setting == Setting::BlockOn;
        let begin = Instant::now();
        self.clients = self.runtimes.run(async {
            if in_block_on {
                let mut back = Vec::with_capacity(1);
                for client in clients {
                    back.push(client.trips(each).await?);
                }
                return Ok(back);
            }
            all(clients.into_iter().map(|client| tokio::spawn(client.trips(each))).collect()).await
        })?;
        Ok(Round { took: begin.elapsed(), operations, samples: Vec::new() })
    }
}

/// Load that changes: one pair is busy for a while, then all are, and so on.
pub struct Changing<S>(Echo<S>);

/// Round trips between two changes, of all pairs together.
const UNTIL_CHANGE: usize = 64;

impl<S: Socket> Changing<S> {
    pub fn new<L: Library<Socket = S>>(
        library: L,
        runtimes: Runtimes,
        pairs: usize,
    ) -> io::Result<Self> {
        Ok(Self(Echo::new(library, runtimes, pairs, SMALL, false)?))
    }
}

impl<S: Socket> Rig for Changing<S> {
    fn round(&mut self, each: usize) -> Result<Round, String> {
        let mut clients = std::mem::take(&mut self.0.clients);
        let every = UNTIL_CHANGE / clients.len();
        let operations = each * (UNTIL_CHANGE + every * clients.len());
        let begin = Instant::now();
        self.0.clients = self.0.runtimes.run(async {
            for _ in 0..each {
                let first = clients.remove(0);
                let first = all(vec![tokio::spawn(first.trips(UNTIL_CHANGE))]).await?;
                clients.extend(first);
                let tasks = clients.drain(..).map(|client| tokio::spawn(client.trips(every)));
                clients = all(tasks.collect()).await?;
            }
            Ok(clients)
        })?;
        Ok(Round { took: begin.elapsed(), operations, samples: Vec::new() })
    }
}
