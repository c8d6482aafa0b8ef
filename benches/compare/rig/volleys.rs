//! Round trips of many messages at a time, plainly or through streams and batches.

use std::io;
use std::time::Instant;

use super::{Runtimes, all};
use crate::contestants::{Rig, Round};
use crate::libraries::{Library, Socket, truncated};
use crate::work::{SMALL, Way};

pub struct Volleys<S> {
    clients: Vec<S>,
    at_once: usize,
    way: Way,
    runtimes: Runtimes,
}

impl<S: Socket> Volleys<S> {
    pub fn new<L: Library<Socket = S>>(
        library: L,
        runtimes: Runtimes,
        pairs: usize,
        at_once: usize,
        way: Way,
    ) -> io::Result<Self> {
        let mut clients = Vec::with_capacity(pairs);
        for _ in 0..pairs {
            let (server, client) = runtimes.pair(&library)?;
            match way {
                Way::Plain => runtimes.servers().spawn(super::echo::serve(server, SMALL)),
                _ => runtimes.servers().spawn(server.serve_stream(at_once)),
            };
            clients.push(client);
        }
        Ok(Self { clients, at_once, way, runtimes })
    }
}

async fn ask<S: Socket>(mut socket: S, way: Way, at_once: usize, count: usize) -> io::Result<S> {
    if way != Way::Plain {
        socket.ask_stream(at_once, count).await?;
        return Ok(socket);
    }
    let mut message = vec![7; SMALL];
    for _ in 0..count {
        for _ in 0..at_once {
            socket.send(&mut message).await?;
        }
        for _ in 0..at_once {
            if socket.recv(&mut message).await? != SMALL {
                return Err(truncated());
            }
        }
    }
    Ok(socket)
}

impl<S: Socket> Rig for Volleys<S> {
    fn round(&mut self, each: usize) -> Result<Round, String> {
        let clients = std::mem::take(&mut self.clients);
        let (way, at_once, count) = (self.way, self.at_once, each.div_ceil(self.at_once));
        let operations = count * at_once * clients.len();
        let begin = Instant::now();
        self.clients = self.runtimes.run(async {
            let tasks = clients.into_iter().map(|client| ask(client, way, at_once, count));
            all(tasks.map(tokio::spawn).collect()).await
        })?;
        Ok(Round { took: begin.elapsed(), operations, samples: Vec::new() })
    }
}
