//! Whether batches are faster than system calls here, which is tried and not computed. Pure: reads no clock, takes no lock.
//!
//! The load says whether a worker's operations could share a batch ([`WorkerLoad`](super::policy::WorkerLoad)). What that
//! saves depends on the machine. On one, an entry of a batch costs half a system call and an atomic operation 4 ns. On
//! another, an entry costs more than a call and an atomic operation 11 ns. So a runtime under load makes its operations in
//! both ways in turns, and times them. It stays with the faster one until it is time to try again.

use std::time::{Duration, Instant};

/// How operations are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    Batched,
}

/// The least operations that are timed together.
const WINDOW: u64 = 1024;

/// The least turns of the run queue that are timed together. A part of one says nothing, since the rest of it makes its
/// operations in the other way.
const TIMED_TURNS: f32 = 6.0;

/// Operations and turns after a change of ways that are not timed.
const WARMUP: u64 = 256;
const WARMUP_TURNS: f32 = 2.0;

/// The windows of a trial. Each way has two, and the better one counts: a moment's delay decides nothing.
const TURNS: [Way; 4] = [Way::Direct, Way::Batched, Way::Direct, Way::Batched];

/// For how many windows a verdict stands that differs from the last. It stands twice as long each time it is confirmed.
const HOLD: [u32; 2] = [32, 2048];

/// A load that has changed this much is another one, if it has for so many windows in a row. Loads are noisy, a turn of the
/// run queue most of all.
const CHANGED: f32 = 3.0;
const CHANGED_WINDOWS: u32 = 4;

/// A turn in batches that the load leaves so often before a window is full is one of nearly empty batches.
const LEAVES: u32 = 4;

/// A window says nothing if an operation takes longer on average: the worker was idle in between.
const TOO_LONG: Duration = Duration::from_micros(100);

#[derive(Debug)]
enum TrialPhase {
    /// Timing `TURNS[turn]`.
    Trying {
        turn: usize,
    },
    Holding {
        windows: u32,
    },
}

/// The trial of a runtime.
#[derive(Debug)]
pub(crate) struct Trial {
    phase: TrialPhase,
    verdict: Way,
    hold: u32,
    /// The load as it was in each way in the last trial: how much is ready at once differs between them.
    load: [f32; 2],
    /// Nanoseconds an operation in this trial, by way.
    best: [f64; 2],
    window: Window,
    /// What was timed last: when, and with which operation. `None` while the ways are changing, and without load.
    last: Option<(Instant, u64)>,
    /// The operation from which on is timed.
    timed_from: u64,
    /// How many windows in a row had another load.
    changed: u32,
    /// How often the load has gone in this turn.
    leaves: u32,
    /// The load that was noted last.
    noted: f32,
}

/// What was timed together, without pauses.
#[derive(Debug, Default, Clone, Copy)]
struct Window {
    operations: u64,
    took: Duration,
    load: f32,
    samples: f32,
}

impl Trial {
    pub(crate) fn new() -> Self {
        Self {
            phase: TrialPhase::Trying { turn: 0 },
            verdict: Way::Batched,
            hold: HOLD[0],
            load: [0.0; 2],
            best: [f64::MAX; 2],
            window: Window::default(),
            last: None,
            timed_from: 0,
            changed: 0,
            leaves: 0,
            noted: 0.0,
        }
    }

    /// Returns how operations are made now, where the load is one for batches.
    pub(crate) fn way(&self) -> Way {
        match self.phase {
            TrialPhase::Trying { turn } => TURNS[turn],
            TrialPhase::Holding { .. } => self.verdict,
        }
    }

    /// Notes how many operations have been made in all by now, under a load for batches, and how many a batch.
    pub(crate) fn note(&mut self, operations: u64, load: f32, now: Instant) {
        self.noted = load;
        let Some((then, before)) = self.last else {
            if operations >= self.timed_from {
                self.last = Some((now, operations));
            }
            return;
        };
        self.last = Some((now, operations));
        self.window.operations += operations.saturating_sub(before);
        self.window.took += now.saturating_duration_since(then);
        self.window.load += load;
        self.window.samples += 1.0;
        let window = at_least(WINDOW, TIMED_TURNS, load);
        if self.window.operations < window {
            return;
        }
        let Window { operations: count, took, load, samples } = std::mem::take(&mut self.window);
        let load = load / samples;
        match self.phase {
            TrialPhase::Holding { windows: left } => {
                let before = self.load[self.verdict as usize];
                let changed = load > CHANGED * before || CHANGED * load < before;
                self.changed = if changed { self.changed + 1 } else { 0 };
                let windows = u32::try_from(count / window).unwrap_or(u32::MAX);
                if left > windows && self.changed < CHANGED_WINDOWS {
                    self.phase = TrialPhase::Holding { windows: left - windows };
                } else {
                    self.best = [f64::MAX; 2];
                    self.turn(TrialPhase::Trying { turn: 0 }, operations);
                }
            }
            TrialPhase::Trying { .. }
                if took.as_nanos() > TOO_LONG.as_nanos() * u128::from(count) =>
            {
                self.turn(TrialPhase::Holding { windows: self.hold }, operations);
            }
            TrialPhase::Trying { turn } => {
                self.load[TURNS[turn] as usize] = load;
                let best = &mut self.best[TURNS[turn] as usize];
                *best = best.min(took.as_nanos() as f64 / count as f64);
                if turn + 1 < TURNS.len() {
                    self.turn(TrialPhase::Trying { turn: turn + 1 }, operations);
                } else {
                    let [direct, batched] = self.best;
                    let verdict = if batched < direct { Way::Batched } else { Way::Direct };
                    let [least, most] = HOLD;
                    self.hold =
                        if verdict == self.verdict { (self.hold * 2).min(most) } else { least };
                    self.verdict = verdict;
                    self.turn(TrialPhase::Holding { windows: self.hold }, operations);
                }
            }
        }
    }

    fn turn(&mut self, phase: TrialPhase, operations: u64) {
        let before = self.way();
        self.phase = phase;
        (self.window, self.changed, self.leaves) = (Window::default(), 0, 0);
        if self.way() != before {
            self.last = None;
            self.timed_from = operations + at_least(WARMUP, WARMUP_TURNS, self.noted);
        }
    }

    /// Notes that the load is not one for batches any more. The window continues when it is again.
    pub(crate) fn pause(&mut self) {
        self.last = None;
        let TrialPhase::Trying { turn } = self.phase else { return };
        if TURNS[turn] == Way::Batched {
            self.leaves += 1;
            if self.leaves >= LEAVES {
                // In direct calls this seemed a load: they come in long series where a sender is ahead of its receiver. Batches were
                // nearly empty: a message or two.
                (self.verdict, self.hold) = (Way::Direct, HOLD[0]);
                self.turn(TrialPhase::Holding { windows: self.hold }, self.timed_from);
            }
        }
    }
}

/// Runs so many operations, and so many turns.
fn at_least(operations: u64, turns: f32, load: f32) -> u64 {
    operations.max((turns * load) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which an operation takes so many nanoseconds, directly and in batches.
    struct Machine {
        trial: Trial,
        now: Instant,
        operations: u64,
        made: [u64; 2],
    }

    impl Machine {
        fn new() -> Self {
            Self { trial: Trial::new(), now: Instant::now(), operations: 0, made: [0; 2] }
        }

        fn run(&mut self, operations: u64, nanos: [u64; 2], load: f32) {
            for _ in 0..operations / 128 {
                let way = self.trial.way() as usize;
                self.operations += 128;
                self.made[way] += 128;
                self.now += Duration::from_nanos(128 * nanos[way]);
                self.trial.note(self.operations, load, self.now);
            }
        }
    }

    #[test]
    fn the_faster_way_is_taken_and_the_other_hardly_tried() {
        for (nanos, faster) in [([700, 500], Way::Batched), ([500, 700], Way::Direct)] {
            let mut machine = Machine::new();
            machine.run(1_000_000, nanos, 16.0);
            assert_eq!(machine.trial.way(), faster);
            let slower = machine.made[1 - faster as usize];
            assert!((2 * WINDOW..20_000).contains(&slower), "{faster:?}: {slower}");
        }
    }

    /// What a turn has begun continues in the way in which it began.
    #[test]
    fn ways_are_distinguished_where_a_turn_is_longer_than_a_window() {
        for (nanos, faster) in [([700, 500], Way::Batched), ([500, 700], Way::Direct)] {
            let mut machine = Machine::new();
            for _ in 0..500 {
                let way = machine.trial.way() as usize;
                machine.run(2048, [nanos[way]; 2], 2048.0);
            }
            assert_eq!(machine.trial.verdict, faster);
        }
    }

    #[test]
    fn what_slows_one_window_down_decides_nothing() {
        let mut machine = Machine::new();
        machine.run(WARMUP + 2 * WINDOW, [500, 600], 16.0);
        machine.run(WINDOW, [5000, 6000], 16.0);
        machine.run(20_000, [500, 600], 16.0);
        assert_eq!(machine.trial.verdict, Way::Direct);
    }

    #[test]
    fn another_load_is_tried_anew() {
        let mut machine = Machine::new();
        machine.run(2_000_000, [500, 600], 8.0);
        assert_eq!(machine.trial.way(), Way::Direct);
        // Long before the verdict would have been reviewed.
        machine.run(20_000, [600, 500], 64.0);
        assert_eq!(machine.trial.verdict, Way::Batched);
    }

    #[test]
    fn too_little_to_do_says_nothing() {
        let mut machine = Machine::new();
        machine.run(WARMUP + 2 * WINDOW, [500_000, 400_000], 8.0);
        assert!(matches!(machine.trial.phase, TrialPhase::Holding { .. }));
        assert_eq!(machine.trial.way(), Way::Batched, "as the load has it");
    }

    #[test]
    fn batches_that_are_nearly_empty_are_not_tried_again_and_again() {
        let mut machine = Machine::new();
        for _ in 0..200 {
            // Long series of direct calls, and a load that goes as soon as they are queued.
            machine.run(128, [500, 2000], 100.0);
            if machine.trial.way() == Way::Batched {
                machine.run(128, [500, 2000], 2.0);
                machine.trial.pause();
            }
        }
        let [direct, batched] = machine.made;
        assert!(batched <= 1280 && direct > 20_000, "{direct} {batched}");
    }

    #[test]
    fn short_bursts_of_load_are_timed_together() {
        for (nanos, faster) in [([500, 400], Way::Batched), ([400, 500], Way::Direct)] {
            let mut machine = Machine::new();
            for _ in 0..100 {
                machine.run(640, nanos, 8.0);
                machine.trial.pause();
                // What is between them is in no window.
                machine.now += Duration::from_secs(5);
            }
            assert_eq!(machine.trial.verdict, faster);
        }
    }

    #[test]
    fn a_noisy_load_is_not_another_one() {
        let mut machine = Machine::new();
        for turn in 0..20_000 {
            machine.run(128, [500, 600], [5.0, 40.0, 300.0, 12.0][turn % 4]);
        }
        assert!(machine.made[Way::Batched as usize] < 30_000, "{:?}", machine.made);
    }

    /// Workers report their operations in any order.
    #[test]
    fn a_count_that_falls_is_no_reason_to_panic() {
        let mut machine = Machine::new();
        machine.run(WARMUP + 128, [500, 600], 8.0);
        machine.trial.note(10, 8.0, machine.now);
        machine.run(20_000, [500, 600], 8.0);
        assert_eq!(machine.trial.verdict, Way::Direct);
    }
}
