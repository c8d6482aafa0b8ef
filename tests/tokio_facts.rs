//! What the library takes for granted about tokio's schedulers, shown without it: tasks, wakers and runtimes.
//!
//! tokio promises none of these orders. A failure here says that tokio has changed, and which rule to check: the retries
//! of a receive (`src/common/policy.rs`), the turns of a driver (`src/backend/driver.rs`), where an operation may be left
//! to one (`src/backend/runtime.rs`), or how a missing I/O driver is found (`src/common/io_driver.rs`).

#[path = "harness/mod.rs"]
#[macro_use]
mod harness;

use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor, worker_index};
use tokio::sync::Notify;
use tokio::task::{block_in_place, spawn_blocking, yield_now};

use harness::AtOnce;
use harness::descriptors::descriptors;
use harness::waiting::{soon, until};

fn main() -> ExitCode {
    let tests = tests![[];
        a_task_that_wakes_itself_runs_behind_the_ready_ones,
        the_future_of_block_on_that_wakes_itself_runs_behind_the_ready_tasks,
        on_current_thread_woken_tasks_run_in_the_order_of_waking,
        on_a_worker_the_task_that_was_woken_last_runs_before_the_ready_ones,
        a_task_that_was_woken_first_of_all_is_behind_once_it_has_woken_itself,
        tasks_that_keep_waking_each_other_let_a_ready_one_run,
        waking_itself_does_not_run_the_io_driver,
        the_io_driver_runs_once_in_61_polls_while_tasks_are_ready,
        a_task_that_yields_by_yield_now_runs_behind_the_io_driver,
        a_task_that_yields_by_yield_now_runs_behind_the_ready_ones,
        in_a_section_that_blocks_in_place_yield_now_wakes_at_once,
        on_workers_each_way_to_yield_wakes_another_worker,
        a_task_that_a_worker_wakes_runs_on_that_worker,
        a_worker_index_is_that_of_the_worker_and_none_elsewhere,
        a_park_is_counted_where_a_worker_waits_and_not_where_it_yields,
        a_runtime_drops_its_tasks_when_it_ends,
        a_runtime_that_is_gone_drops_what_is_spawned_on_it,
        an_io_driver_is_an_epoll_instance_and_there_is_none_without_one,
        a_descriptor_that_is_registered_where_no_io_driver_is_panics,
    ];
    harness::main(AtOnce::One, tests)
}

// ----- tools -----

fn current_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn multi_thread(workers: usize) -> Runtime {
    Builder::new_multi_thread().worker_threads(workers).enable_all().build().expect("a runtime")
}

/// Run in a task, on the only thread of a runtime.
fn in_a_task<F: Future<Output = ()> + Send + 'static>(runtime: &Runtime, body: F) {
    runtime.block_on(async { soon(tokio::spawn(body)).await.expect("no panic") });
}

/// Run in a task on each kind of runtime, all of whose tasks share one thread.
fn on_one_thread<F: Future<Output = ()> + Send + 'static>(body: impl Fn() -> F) {
    in_a_task(&current_thread(), body());
    in_a_task(&multi_thread(1), body());
}

/// The tasks that were polled, in this order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<&'static str>>>);

impl Log {
    fn note(&self, name: &'static str) {
        self.0.lock().unwrap().push(name);
    }

    fn take(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

/// Records its name at each poll, and ends at the second. `yields` causes the second poll.
async fn twice(log: Log, names: [&'static str; 2], mut yields: impl FnMut(&mut Context<'_>)) {
    let mut polled = false;
    std::future::poll_fn(|cx| {
        log.note(names[usize::from(polled)]);
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        yields(cx);
        Poll::Pending
    })
    .await;
}

/// As a receive and a driver let ready tasks run.
fn wake_itself(cx: &mut Context<'_>) {
    cx.waker().wake_by_ref();
}

/// As they let the I/O driver run, too: a future that is polled once and dropped.
fn poll_yield_now(cx: &mut Context<'_>) {
    assert!(pin!(yield_now()).poll(cx).is_pending());
}

/// Pending once, to be polled again as `yields` says.
fn pause(yields: fn(&mut Context<'_>)) -> impl Future<Output = ()> {
    let mut polled = false;
    std::future::poll_fn(move |cx| {
        if std::mem::replace(&mut polled, true) {
            return Poll::Ready(());
        }
        yields(cx);
        Poll::Pending
    })
}

/// A waker that only notes that it was called.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A socket that is readable, which the I/O driver has not reported yet.
struct Event {
    woken: Arc<Woken>,
    _socket: tokio::net::UnixStream,
    _peer: UnixStream,
}

impl Event {
    fn new() -> Self {
        let (socket, peer) = UnixStream::pair().expect("socketpair(2)");
        socket.set_nonblocking(true).expect("O_NONBLOCK");
        let socket = tokio::net::UnixStream::from_std(socket).expect("a registration");
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        assert!(socket.poll_read_ready(&mut Context::from_waker(&waker)).is_pending());
        std::io::Write::write_all(&mut &peer, b"x").expect("capacity");
        Self { woken, _socket: socket, _peer: peer }
    }

    fn was_woken(&self) -> bool {
        self.woken.0.load(Ordering::SeqCst)
    }
}

// ----- which task runs next -----

/// A retry: the task that sends what a receive waits for may be one of the ready ones.
fn a_task_that_wakes_itself_runs_behind_the_ready_ones() {
    on_one_thread(|| async {
        let log = Log::default();
        let mut tasks = vec![tokio::spawn(twice(log.clone(), ["itself", "again"], wake_itself))];
        for _ in 0..20 {
            let log = log.clone();
            tasks.push(tokio::spawn(async move { log.note("ready") }));
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        let polls = log.take();
        assert_eq!(polls.last(), Some(&"again"), "{polls:?}");
        assert_eq!(polls.len(), 22);
    });
}

/// A receive may be awaited by `block_on` itself.
fn the_future_of_block_on_that_wakes_itself_runs_behind_the_ready_tasks() {
    current_thread().block_on(async {
        let log = Log::default();
        for _ in 0..20 {
            let log = log.clone();
            tokio::spawn(async move { log.note("ready") });
        }
        pause(wake_itself).await;
        assert_eq!(log.take(), ["ready"; 20]);
    });
}

/// Tasks that wait to be woken through this, and where they wait.
fn waiting(log: &Log, names: [&'static str; 3]) -> [Arc<Notify>; 3] {
    names.map(|name| {
        let (log, notify) = (log.clone(), Arc::new(Notify::new()));
        let notified = notify.clone().notified_owned();
        tokio::spawn(async move {
            notified.await;
            log.note(name);
        });
        notify
    })
}

/// So waiters that are woken together are served in this order.
fn on_current_thread_woken_tasks_run_in_the_order_of_waking() {
    in_a_task(&current_thread(), async {
        let log = Log::default();
        let notifies = waiting(&log, ["one", "two", "three"]);
        yield_now().await;
        notifies.iter().for_each(|notify| notify.notify_one());
        yield_now().await;
        assert_eq!(log.take(), ["one", "two", "three"]);
    });
}

/// tokio's LIFO slot. So G9 promises the order of waking, and a driver that is woken lets the ready tasks run first.
fn on_a_worker_the_task_that_was_woken_last_runs_before_the_ready_ones() {
    in_a_task(&multi_thread(1), async {
        let log = Log::default();
        let notifies = waiting(&log, ["one", "two", "three"]);
        yield_now().await;
        notifies.iter().for_each(|notify| notify.notify_one());
        yield_now().await;
        assert_eq!(log.take(), ["three", "one", "two"]);
    });
}

/// The first step of a driver that is woken.
fn a_task_that_was_woken_first_of_all_is_behind_once_it_has_woken_itself() {
    on_one_thread(|| async {
        let log = Log::default();
        let woken = Arc::new(Notify::new());
        let driver = tokio::spawn({
            let (log, notified) = (log.clone(), woken.clone().notified_owned());
            async move {
                notified.await;
                twice(log, ["driver", "pass"], wake_itself).await;
            }
        });
        let others = waiting(&log, ["one", "two", "three"]);
        yield_now().await;
        others.iter().for_each(|notify| notify.notify_one());
        woken.notify_one();
        driver.await.expect("no panic");
        let polls = log.take();
        assert_eq!(polls.len(), 5, "{polls:?}");
        assert_eq!(polls.last(), Some(&"pass"), "{polls:?}");
    });
}

/// Else a pair that wakes each other would keep a retry, or a driver, waiting for ever.
fn tasks_that_keep_waking_each_other_let_a_ready_one_run() {
    on_one_thread(|| async {
        const TURNS: u32 = 1000;
        let (here, there) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let turns = Arc::new(AtomicU32::new(0));
        let pair = [(here.clone(), there.clone()), (there, here.clone())].map(|(mine, theirs)| {
            let turns = turns.clone();
            tokio::spawn(async move {
                while turns.fetch_add(1, Ordering::SeqCst) < TURNS {
                    mine.notified().await;
                    theirs.notify_one();
                }
                theirs.notify_one();
            })
        });
        let retry = tokio::spawn({
            let turns = turns.clone();
            async move {
                let mut polls = 0;
                while turns.load(Ordering::SeqCst) < TURNS {
                    pause(wake_itself).await;
                    polls += 1;
                }
                polls
            }
        });
        here.notify_one();
        for task in pair {
            task.await.expect("no panic");
        }
        let polls = retry.await.expect("no panic");
        assert!(polls > TURNS / 10, "{polls} polls in {TURNS} turns");
    });
}

// ----- when events come in -----

/// So a retry costs no `epoll_wait(2)`; what an event would bring stays unseen.
fn waking_itself_does_not_run_the_io_driver() {
    on_one_thread(|| async {
        let mut woken = 0;
        for _ in 0..20 {
            let event = Event::new();
            pause(wake_itself).await;
            woken += u32::from(event.was_woken());
            // The turn of the I/O driver, which comes once in a while, may have been now.
            pause(poll_yield_now).await;
        }
        assert!(woken <= 2, "{woken} of 20 woken");
    });
}

/// So a driver that always has work, and wakes itself, starves no readiness and no timer.
fn the_io_driver_runs_once_in_61_polls_while_tasks_are_ready() {
    on_one_thread(|| async {
        for _ in 0..5 {
            let event = Event::new();
            let mut polls = 0;
            while !event.was_woken() {
                pause(wake_itself).await;
                polls += 1;
                assert!(polls <= 2 * 61, "not woken after {polls} polls");
            }
        }
    });
}

/// The last retries of a receive, and a driver whose pass found nothing: what they wait for may come from a task that waits
/// for an event.
fn a_task_that_yields_by_yield_now_runs_behind_the_io_driver() {
    on_one_thread(|| async {
        for _ in 0..20 {
            let event = Event::new();
            assert!(!event.was_woken());
            pause(poll_yield_now).await;
            assert!(event.was_woken());
        }
    });
}

fn a_task_that_yields_by_yield_now_runs_behind_the_ready_ones() {
    on_one_thread(|| async {
        let log = Log::default();
        let yields = tokio::spawn(twice(log.clone(), ["yields", "again"], poll_yield_now));
        // Ready more than once.
        let ready = [(); 20].map(|()| {
            let log = log.clone();
            tokio::spawn(twice(log, ["ready", "ready"], wake_itself))
        });
        yields.await.expect("no panic");
        for task in ready {
            task.await.expect("no panic");
        }
        let polls = log.take();
        assert_eq!(polls.last(), Some(&"again"), "{polls:?}");
    });
}

/// There is no I/O driver to run there. The task is not forgotten.
fn in_a_section_that_blocks_in_place_yield_now_wakes_at_once() {
    in_a_task(&multi_thread(1), async {
        let woken = Arc::new(Woken::default());
        let waker = Waker::from(woken.clone());
        block_in_place(|| poll_yield_now(&mut Context::from_waker(&waker)));
        assert!(woken.0.load(Ordering::SeqCst));
    });
}

// ----- several workers -----

/// Why retries are rare on multi_thread. A worker that runs out of ready tasks tries to steal some before it runs the I/O
/// driver for `yield_now`, and passes the search on with the next task that it polls.
fn on_workers_each_way_to_yield_wakes_another_worker() {
    let runtime = multi_thread(2);
    in_a_task(&runtime, async {
        let metrics = Handle::current().metrics();
        let parks = || (0..2).map(|worker| metrics.worker_park_count(worker)).sum::<u64>();
        for yields in [wake_itself, poll_yield_now] {
            for _ in 0..10 {
                // The other worker parks, and stays parked while this one works.
                let mut before = 0;
                until("the other worker is parked", || {
                    thread::sleep(Duration::from_millis(2));
                    std::mem::replace(&mut before, parks()) == parks()
                });
                pause(yields).await;
                // Woken for the task, which runs already, it parks again. If it has taken the task, the other one parks.
                until("a worker has parked again", || parks() > before);
            }
        }
    });
}

/// So a driver mostly runs on the worker whose sockets list work with it: it is woken by their tasks.
fn a_task_that_a_worker_wakes_runs_on_that_worker() {
    let runtime = multi_thread(2);
    in_a_task(&runtime, async {
        for _ in 0..100 {
            let notify = Arc::new(Notify::new());
            let notified = notify.clone().notified_owned();
            let woken = tokio::spawn(async move {
                notified.await;
                worker_index()
            });
            // The other worker may take this task meanwhile. It does not take the next one.
            yield_now().await;
            notify.notify_one();
            let here = worker_index();
            assert!(here.is_some());
            assert_eq!(woken.await.expect("no panic"), here);
        }
    });
}

/// An operation is left to a driver on a worker only.
fn a_worker_index_is_that_of_the_worker_and_none_elsewhere() {
    assert_eq!(worker_index(), None);
    let runtime = current_thread();
    {
        let _entered = runtime.enter();
        assert_eq!(worker_index(), None, "entered, and not driven");
    }
    runtime.block_on(async {
        assert_eq!(worker_index(), Some(0));
        assert_eq!(soon(tokio::spawn(async { worker_index() })).await.unwrap(), Some(0));
        assert_eq!(soon(spawn_blocking(worker_index)).await.unwrap(), None);
        let handle = Handle::current();
        assert_eq!(handle.runtime_flavor(), RuntimeFlavor::CurrentThread);
        // One that waits on the runtime without driving it.
        let other = thread::spawn(move || handle.block_on(async { worker_index() }));
        assert_eq!(other.join().unwrap(), None);
    });

    let runtime = multi_thread(3);
    assert_eq!(runtime.block_on(async { worker_index() }), None);
    runtime.block_on(async {
        assert_eq!(Handle::current().metrics().num_workers(), 3);
        let indexes: Vec<_> = (0..30).map(|_| tokio::spawn(async { worker_index() })).collect();
        for index in indexes {
            assert!(soon(index).await.unwrap().is_some_and(|index| index < 3));
        }
        assert_eq!(soon(spawn_blocking(worker_index)).await.unwrap(), None);
    });
}

/// A driver takes no sample of a worker that parks often.
fn a_park_is_counted_where_a_worker_waits_and_not_where_it_yields() {
    on_one_thread(|| async {
        let parks = || Handle::current().metrics().worker_park_count(0);
        let before = parks();
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let waited = parks() - before;
        assert!(waited >= 10, "{waited} parks");
        let before = parks();
        for _ in 0..100 {
            pause(wake_itself).await;
            pause(poll_yield_now).await;
        }
        let yielded = parks() - before;
        assert!(yielded <= 2, "{yielded} parks");
    });
}

// ----- the end -----

/// Says when it is dropped.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

impl Future for Dropped {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

/// A driver that is dropped marks its runtime as gone, and wakes what waits.
fn a_runtime_drops_its_tasks_when_it_ends() {
    let ends: [fn(Runtime); 3] =
        [drop, Runtime::shutdown_background, |it| it.shutdown_timeout(Duration::from_millis(1))];
    for make in [current_thread, || multi_thread(2)] {
        for end in ends {
            let (runtime, dropped) = (make(), Arc::new(AtomicBool::new(false)));
            runtime.spawn(Dropped(dropped.clone()));
            runtime.block_on(yield_now());
            assert!(!dropped.load(Ordering::SeqCst));
            end(runtime);
            until("the task is dropped", || dropped.load(Ordering::SeqCst));
        }
    }
}

/// So a driver for a runtime that is gone, or ends meanwhile, says so.
fn a_runtime_that_is_gone_drops_what_is_spawned_on_it() {
    for make in [current_thread, || multi_thread(2)] {
        let (runtime, dropped) = (make(), Arc::new(AtomicBool::new(false)));
        let handle = runtime.handle().clone();
        drop(runtime);
        handle.spawn(Dropped(dropped.clone()));
        assert!(dropped.load(Ordering::SeqCst));
    }
}

/// So a process without one has no I/O driver. `src/common/io_driver.rs` checks this where it would refuse a socket.
fn an_io_driver_is_an_epoll_instance_and_there_is_none_without_one() {
    let epolls = || {
        let files = descriptors().into_iter().filter(|(_, file)| file == "anon_inode:[eventpoll]");
        files.count()
    };
    let mut builders = [Builder::new_current_thread(), Builder::new_multi_thread()];
    for builder in &mut builders {
        let before = epolls();
        let runtime = builder.enable_time().build().expect("a runtime");
        assert_eq!(epolls(), before);
        drop(runtime);
        let runtime = builder.enable_io().build().expect("a runtime");
        assert!(epolls() > before);
        drop(runtime);
        until("it is closed", || epolls() == before);
    }
}

/// If this becomes an error, or a call to ask exists (tokio-rs/tokio#8362 adds one for timers), use that.
fn a_descriptor_that_is_registered_where_no_io_driver_is_panics() {
    let runtime = Builder::new_current_thread().enable_time().build().expect("a runtime");
    let _entered = runtime.enter();
    let (socket, _peer) = UnixStream::pair().expect("a pair");
    socket.set_nonblocking(true).expect("non-blocking");
    std::panic::set_hook(Box::new(|_| {}));
    let register = || tokio::net::UnixStream::from_std(socket).is_ok();
    let registered = catch_unwind(AssertUnwindSafe(register));
    drop(std::panic::take_hook());
    assert!(registered.is_err());
}
