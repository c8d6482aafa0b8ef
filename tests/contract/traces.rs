//! What is recorded through the crate `tracing`: the lives of sockets and listeners, and nothing about messages.

use std::fmt::{Debug, Write};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::runtime::Runtime;
use tokio_test::task;
use tracing::Event;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing::subscriber::{DefaultGuard, set_default};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry, SpanRef};

use crate::harness::messages::recv;
use crate::harness::waiting::{soon, starts_waiting, until_woken};
use crate::harness::{Cell, Test, alone};

pub fn tests() -> Vec<Test> {
    [
        blocking![
            a_span_lasts_as_long_as_its_socket,
            a_span_ends_when_the_descriptor_is_given_away,
            each_connection_is_accepted_in_a_span_of_its_own,
            a_socket_does_not_keep_the_span_open_in_which_it_was_made,
            messages_enter_no_span,
            a_refused_connection_is_an_event_in_the_span_of_its_listener,
        ],
        alone(blocking![a_shortage_is_an_event_in_the_span_of_its_listener]),
    ]
    .concat()
}

fn a_span_lasts_as_long_as_its_socket(cell: Cell) {
    let (runtime, log, _guard) = recorded(cell);
    runtime.block_on(async {
        let (a, b) = cell.pair();
        let [first, second] = log.named("socket")[..] else { panic!("{log:?}") };
        assert_eq!(
            log.span(first).fields,
            format!("backend={} fd={}", cell.backend, a.as_raw_fd())
        );
        assert_eq!(
            log.span(second).fields,
            format!("backend={} fd={}", cell.backend, b.as_raw_fd())
        );
        drop(a);
        assert!(!log.span(first).open && log.span(second).open);
        let (reader, writer) = b.into_split();
        drop(reader);
        assert!(log.span(second).open);
        drop(writer);
        assert!(!log.span(second).open);
    });
}

fn a_span_ends_when_the_descriptor_is_given_away(cell: Cell) {
    let (runtime, log, _guard) = recorded(cell);
    runtime.block_on(async {
        let (a, _b) = cell.pair();
        let (_directory, path) = place();
        let listener = cell.bind(&path);
        let (socket, listening) = (log.named("socket")[0], log.named("listener")[0]);
        let _fds = [OwnedFd::from(a), OwnedFd::from(listener)];
        assert!(!log.span(socket).open && !log.span(listening).open);
    });
}

fn each_connection_is_accepted_in_a_span_of_its_own(cell: Cell) {
    let (runtime, log, _guard) = recorded(cell);
    runtime.block_on(async {
        let (_directory, path) = place();
        let listener = cell.bind(&path);
        let [listening] = log.named("listener")[..] else { panic!("{log:?}") };
        let fd = listener.as_raw_fd();
        assert_eq!(log.span(listening).fields, format!("backend={} fd={fd}", cell.backend));

        let mut incoming = listener.incoming().unwrap();
        let mut sockets = Vec::new();
        for count in 1..=2 {
            let client = cell.connect(&path).await;
            let socket = match count {
                1 => soon(listener.accept()).await.unwrap(),
                _ => soon(incoming.accept()).await.unwrap(),
            };
            let accept = log.span(log.named("accept")[count - 1]);
            assert_eq!(accept.fields, format!("fd={}", socket.as_raw_fd()));
            assert_eq!((accept.parent, accept.open), (Some(listening), false));
            let made = log.span(*log.named("socket").last().unwrap());
            assert_eq!(made.fields, format!("backend={} fd={}", cell.backend, socket.as_raw_fd()));
            assert_eq!(made.follows, log.named("accept").last().copied());
            sockets.push((client, socket));
        }
        drop(incoming);
        drop(listener);
        assert!(!log.span(listening).open, "its connections are not part of it");
    });
}

fn a_socket_does_not_keep_the_span_open_in_which_it_was_made(cell: Cell) {
    let (runtime, log, _guard) = recorded(cell);
    runtime.block_on(async {
        let (_a, _b) = tracing::info_span!("request").in_scope(|| cell.pair());
        let request = log.named("request")[0];
        assert!(!log.span(request).open);
        for socket in log.named("socket") {
            let socket = log.span(socket);
            assert_eq!((socket.parent, socket.follows, socket.open), (None, Some(request), true));
        }
    });
}

fn messages_enter_no_span(cell: Cell) {
    let (runtime, log, _guard) = recorded(cell);
    runtime.block_on(async {
        let (a, b) = cell.pair();
        let before = log.totals();
        for _ in 0..10 {
            let mut receive = task::spawn(recv(&b));
            starts_waiting(&mut receive);
            a.send(b"message").await.unwrap();
            soon(receive).await;
        }
        assert_eq!(log.totals(), before);
    });
}

fn a_shortage_is_an_event_in_the_span_of_its_listener(cell: Cell) {
    let (runtime, log, _guard) = recorded(cell);
    runtime.block_on(async {
        let (_directory, path) = place();
        let listener = cell.bind(&path);
        let _client = cell.connect(&path).await;
        let mut incoming = listener.incoming().unwrap();
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(0), ..before }).unwrap();
        let mut accept = task::spawn(incoming.accept());
        starts_waiting(&mut accept);
        until_woken(&mut accept).await;
        starts_waiting(&mut accept);
        setrlimit(Resource::Nofile, before).unwrap();
        let events = log.lock().events.clone();
        let [(event, inside), ..] = &events[..] else { panic!("{log:?}") };
        assert!(event.contains("not accepted until there is room"), "{event}");
        assert_eq!(*inside, Some(log.named("listener")[0]));
    });
}

fn a_refused_connection_is_an_event_in_the_span_of_its_listener(cell: Cell) {
    let (runtime, log, _guard) = recorded(cell);
    runtime.block_on(async {
        let (_directory, path) = place();
        let listener = cell.bind(&path);
        let _client = cell.connect(&path).await;
        let mut incoming = listener.incoming().unwrap().authorize(|_| false);
        let mut accept = task::spawn(incoming.accept());
        starts_waiting(&mut accept);
        let events = log.lock().events.clone();
        let [(event, inside)] = &events[..] else { panic!("{log:?}") };
        assert!(event.contains("a connection was refused"), "{event}");
        assert!(event.contains("not authorized"), "{event}");
        let user = rustix::process::geteuid().as_raw();
        assert!(event.contains(&format!("user={user}")), "{event}");
        assert_eq!(*inside, Some(log.named("listener")[0]));
    });
}

fn place() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("socket");
    (directory, path)
}

/// A runtime, and what is recorded on this thread, which is the one that `block_on` polls on.
fn recorded(cell: Cell) -> (Runtime, Log, DefaultGuard) {
    let log = Log::default();
    let guard = set_default(Registry::default().with(log.clone()));
    (cell.runtime(), log, guard)
}

#[derive(Debug, Default, Clone)]
struct Log(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    spans: Vec<Span>,
    entered: usize,
    /// With the span that each was recorded in.
    events: Vec<(String, Option<usize>)>,
}

/// Others are named by their place in the log: the registry uses its numbers again.
#[derive(Debug, Clone)]
struct Span {
    name: &'static str,
    fields: String,
    parent: Option<usize>,
    follows: Option<usize>,
    open: bool,
}

struct Place(usize);

impl Log {
    fn lock(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap()
    }

    fn named(&self, name: &str) -> Vec<usize> {
        let recorded = self.lock();
        (0..recorded.spans.len()).filter(|place| recorded.spans[*place].name == name).collect()
    }

    fn span(&self, place: usize) -> Span {
        self.lock().spans[place].clone()
    }

    /// Spans made, spans entered, events.
    fn totals(&self) -> (usize, usize, usize) {
        let recorded = self.lock();
        (recorded.spans.len(), recorded.entered, recorded.events.len())
    }
}

fn place_of<'a>(span: &SpanRef<'a, impl LookupSpan<'a>>) -> usize {
    span.extensions().get::<Place>().expect("seen when it was made").0
}

impl<S> Layer<S> for Log
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let mut fields = Words::default();
        attributes.record(&mut fields);
        let mut recorded = self.lock();
        span.extensions_mut().insert(Place(recorded.spans.len()));
        recorded.spans.push(Span {
            name: span.name(),
            fields: fields.0,
            parent: span.parent().map(|parent| place_of(&parent)),
            follows: None,
            open: true,
        });
    }

    fn on_follows_from(&self, id: &Id, follows: &Id, context: Context<'_, S>) {
        let [span, follows] = [id, follows].map(|id| place_of(&context.span(id).unwrap()));
        self.lock().spans[span].follows = Some(follows);
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Words::default();
        event.record(&mut fields);
        let inside = context.event_span(event).map(|span| place_of(&span));
        self.lock().events.push((fields.0, inside));
    }

    fn on_enter(&self, _: &Id, _: Context<'_, S>) {
        self.lock().entered += 1;
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let place = place_of(&context.span(&id).unwrap());
        self.lock().spans[place].open = false;
    }
}

#[derive(Default)]
struct Words(String);

impl Visit for Words {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let space = if self.0.is_empty() { "" } else { " " };
        write!(self.0, "{space}{field}={value:?}").unwrap();
    }
}
