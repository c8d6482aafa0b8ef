//! What a service's sockets do, as Prometheus text over HTTP: the counters of its sockets and of its runtime.
//!
//!     cargo run --example metrics -- 127.0.0.1:9400
//!     cargo run --example metrics -- --once
//!
//! The first serves `/metrics` until it is interrupted, while clients talk to an echo service. The second asks its own
//! endpoint once and prints the answer.
//!
//! The library counts all the time. Nothing is recorded for each message here: the counters are read when Prometheus
//! asks. A socket's counters end with it, so [`Watched`] adds them up when it is dropped.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::{MetricType, TypedMetric};
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_seqpacket::{SocketCounters, UnixSeqpacket, metrics};

/// The sockets of a process, by their role. A label for each connection would be a new time series for each.
#[derive(Debug, Default)]
struct Sockets(Mutex<BTreeMap<&'static str, Role>>);

#[derive(Debug, Default)]
struct Role {
    open: Vec<Weak<UnixSeqpacket>>,
    /// What sockets had counted that are gone.
    closed: SocketCounters,
}

impl Sockets {
    fn watch(self: &Arc<Self>, role: &'static str, socket: UnixSeqpacket) -> Watched {
        let socket = Arc::new(socket);
        self.change(role, |role| role.open.push(Arc::downgrade(&socket)));
        Watched { socket, role, sockets: self.clone() }
    }

    fn change(&self, role: &'static str, change: impl FnOnce(&mut Role)) {
        let mut roles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(roles.entry(role).or_default());
    }

    /// Returns how many sockets of each role are open, and what all have counted. It never falls, as Prometheus expects of
    /// counters.
    fn read(&self) -> Vec<(&'static str, u64, SocketCounters)> {
        let roles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let read = |(name, role): (&&'static str, &Role)| {
            let open: Vec<_> = role.open.iter().filter_map(Weak::upgrade).collect();
            let counted: SocketCounters = open.iter().map(|socket| socket.counters()).sum();
            (*name, open.len() as u64, role.closed + counted)
        };
        roles.iter().map(read).collect()
    }
}

/// A socket whose counters are exported.
struct Watched {
    socket: Arc<UnixSeqpacket>,
    role: &'static str,
    sockets: Arc<Sockets>,
}

impl Deref for Watched {
    type Target = UnixSeqpacket;

    fn deref(&self) -> &UnixSeqpacket {
        &self.socket
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.sockets.change(self.role, |role| {
            role.open.retain(|open| !std::ptr::eq(open.as_ptr(), &*self.socket));
            role.closed = role.closed + self.socket.counters();
        });
    }
}

/// Reads the counters when Prometheus asks. Called in the runtime, whose own counters it reads, too.
#[derive(Debug)]
struct Exported(Arc<Sockets>);

impl Collector for Exported {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), fmt::Error> {
        let sockets = self.0.read();
        let mut open =
            encoder.encode_descriptor("seqpacket_open", "Open sockets", None, MetricType::Gauge)?;
        for (role, count, _) in &sockets {
            let gauge = ConstGauge::new(*count);
            gauge.encode(open.encode_family(&[("role", *role)])?)?;
        }

        type Pick = fn(&SocketCounters) -> [u64; 2];
        let both_directions: [(&str, &str, Pick); 4] = [
            ("messages", "Messages", |c| [c.messages_sent, c.messages_received]),
            ("bytes", "Bytes of messages", |c| [c.bytes_sent, c.bytes_received]),
            ("fds", "File descriptors passed", |c| [c.fds_sent, c.fds_received]),
            ("parked", "Waits for readiness", |c| [c.sends_parked, c.receives_parked]),
        ];
        for (name, help, pick) in both_directions {
            let name = format!("seqpacket_{name}");
            let counter = ConstCounter::<u64>::TYPE;
            let mut family = encoder.encode_descriptor(&name, help, None, counter)?;
            for (role, _, counters) in &sockets {
                for (direction, count) in ["sent", "received"].into_iter().zip(pick(counters)) {
                    let labels = [("role", *role), ("direction", direction)];
                    ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
                }
            }
        }

        // An error says that this is outside a runtime, or that the runtime ends.
        let Ok(runtime) = metrics() else { return Ok(()) };
        let total = runtime.total();
        let of_the_runtime = [
            ("direct_calls", "Operations by a system call of their own", total.direct_calls),
            ("submissions", "Operations through a ring", total.submissions),
            ("enters", "Calls of io_uring_enter", total.enters),
            ("refused", "Operations that a ring refused", total.refused),
        ];
        for (name, help, count) in of_the_runtime {
            let (name, counter) = (format!("seqpacket_runtime_{name}"), ConstCounter::new(count));
            counter.encode(encoder.encode_descriptor(
                &name,
                help,
                None,
                counter.metric_type(),
            )?)?;
        }
        Ok(())
    }
}

/// Answers HTTP requests, whatever they ask for.
async fn serve_http(listener: TcpListener, registry: Registry) -> io::Result<()> {
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry)
            .map_err(io::Error::other)?;
        // One client that is gone or slow is no reason to end.
        let answer = tokio::time::timeout(Duration::from_secs(1), async {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await?;
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            let head = format!("HTTP/1.0 200 OK\r\ncontent-type: {kind}\r\n\r\n");
            stream.write_all(format!("{head}{text}").as_bytes()).await
        });
        let _ = answer.await;
    }
}

async fn echo(socket: Watched) -> io::Result<()> {
    let mut buffer = [0; 1024];
    loop {
        let len = socket.recv(&mut buffer).await?;
        if len == 0 {
            return Ok(());
        }
        socket.send(&buffer[..len]).await?;
    }
}

/// Clients that send ten messages each and leave.
async fn talk(sockets: &Arc<Sockets>, clients: usize) -> io::Result<()> {
    for _ in 0..clients {
        let (client, service) = UnixSeqpacket::pair()?;
        let client = sockets.watch("client", client);
        let served = tokio::spawn(echo(sockets.watch("service", service)));
        for _ in 0..10 {
            client.send(b"hello").await?;
            client.recv(&mut [0; 1024]).await?;
        }
        drop(client);
        served.await??;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "--once".to_owned());
    let once = address == "--once";
    let listener = TcpListener::bind(if once { "127.0.0.1:0" } else { &*address }).await?;
    let address = listener.local_addr()?;
    let sockets = Arc::new(Sockets::default());
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Exported(sockets.clone())));
    tokio::spawn(serve_http(listener, registry));
    if once {
        talk(&sockets, 3).await?;
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (_, text) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::InvalidData)?;
        print!("{text}");
        return Ok(());
    }
    eprintln!("http://{address}/metrics");
    loop {
        talk(&sockets, 1).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}
