//! Whether batches are faster than system calls here: tried, not computed. Pure: reads no clock, takes no lock.
//!
//! The load says whether a worker's operations could share a batch ([`Mode`](super::policy::Mode)). What that saves depends
//! on the machine: on one, an entry of a batch costs half a system call and an atomic operation 4 ns; on another, an entry
//! costs more than a call and an atomic operation 11 ns. So a runtime under load makes its operations in both ways by turns, times
//! them, and stays with the faster one until it is time to try again.

use std::time::{Duration, Instant};

/// How operations are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Direct,
    Batched,
}

/// Operations that are timed together.
const WINDOW: u64 = 1024;

/// Operations after a change of ways that are not timed.
const SETTLING: u64 = 256;

/// The windows of a trial. Each way has two, and the better one counts: what slows one down for a moment decides nothing.
const TURNS: [Way; 4] = [Way::Direct, Way::Batched, Way::Direct, Way::Batched];

/// For how many windows a verdict stands that differs from the last. It stands twice as long each time it is
/// confirmed.
const HOLD: [u32; 2] = [32, 2048];

/// A load that has changed this much is another one.
const CHANGED: f32 = 3.0;

/// A window that takes longer says nothing: there was too little to do.
const TOO_LONG: Duration = Duration::from_millis(100);

#[derive(Debug)]
enum Phase {
    /// Timing `TURNS[turn]`.
    Trying {
        turn: usize,
    },
    Holding {
        windows: u32,
    },
}

/// A runtime's.
#[derive(Debug)]
pub(crate) struct Trial {
    phase: Phase,
    verdict: Way,
    hold: u32,
    /// The load as it was in each way in the last trial: what is ready at once is not the same in both.
    load: [f32; 2],
    /// Nanoseconds an operation in this trial, by way.
    best: [f64; 2],
    /// When the window began, and with which operation. `None` while the ways are changing.
    window: Option<(Instant, u64)>,
    /// The operation with which the next window can begin.
    settled: u64,
}

impl Trial {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Trying { turn: 0 },
            verdict: Way::Batched,
            hold: HOLD[0],
            load: [0.0; 2],
            best: [f64::MAX; 2],
            window: None,
            settled: 0,
        }
    }

    /// How operations are to be made now, where the load is one for batches.
    pub(crate) fn way(&self) -> Way {
        match self.phase {
            Phase::Trying { turn } => TURNS[turn],
            Phase::Holding { .. } => self.verdict,
        }
    }

    /// So many operations have been made in all by now, under a load for batches: so many operations a batch.
    pub(crate) fn note(&mut self, operations: u64, load: f32, now: Instant) {
        let Some((begin, first)) = self.window else {
            if operations >= self.settled {
                self.window = Some((now, operations));
            }
            return;
        };
        let count = operations - first;
        if count < WINDOW {
            return;
        }
        let took = now.duration_since(begin);
        let windows = u32::try_from(count / WINDOW).unwrap_or(u32::MAX);
        self.window = Some((now, operations));
        match self.phase {
            Phase::Holding { windows: left } => {
                let before = self.load[self.verdict as usize];
                let changed = load > CHANGED * before || CHANGED * load < before;
                if left > windows && !changed {
                    self.phase = Phase::Holding { windows: left - windows };
                    return;
                }
                if changed {
                    self.hold = HOLD[0];
                }
                self.best = [f64::MAX; 2];
                self.turn(Phase::Trying { turn: 0 }, operations);
            }
            Phase::Trying { .. } if took > TOO_LONG => {
                self.turn(Phase::Holding { windows: self.hold }, operations);
            }
            Phase::Trying { turn } => {
                self.load[TURNS[turn] as usize] = load;
                let best = &mut self.best[TURNS[turn] as usize];
                *best = best.min(took.as_nanos() as f64 / count as f64);
                if turn + 1 < TURNS.len() {
                    self.turn(Phase::Trying { turn: turn + 1 }, operations);
                } else {
                    let [direct, batched] = self.best;
                    let verdict = if batched < direct { Way::Batched } else { Way::Direct };
                    self.decide(verdict, operations);
                }
            }
        }
    }

    fn decide(&mut self, verdict: Way, operations: u64) {
        let [least, most] = HOLD;
        self.hold = if verdict == self.verdict { (self.hold * 2).min(most) } else { least };
        self.verdict = verdict;
        self.turn(Phase::Holding { windows: self.hold }, operations);
    }

    fn turn(&mut self, phase: Phase, operations: u64) {
        let before = self.way();
        self.phase = phase;
        if self.way() != before {
            self.window = None;
            self.settled = operations + SETTLING;
        }
    }

    /// The load is not one for batches any more.
    pub(crate) fn pause(&mut self) {
        self.window = None;
        let Phase::Trying { turn } = self.phase else { return };
        if TURNS[turn] == Way::Batched {
            // It looked like one in direct calls, which come in long series where a sender is ahead of its receiver. Batches
            // were nearly empty: a message or two.
            self.decide(Way::Direct, self.settled);
        } else {
            self.best = [f64::MAX; 2];
            self.phase = Phase::Trying { turn: 0 };
        }
    }
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

    #[test]
    fn what_slows_one_window_down_decides_nothing() {
        let mut machine = Machine::new();
        machine.run(SETTLING + 2 * WINDOW, [500, 600], 16.0);
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
        machine.run(SETTLING + 2 * WINDOW, [500_000, 400_000], 8.0);
        assert!(matches!(machine.trial.phase, Phase::Holding { .. }));
        assert_eq!(machine.trial.way(), Way::Batched, "as the load has it");
    }

    #[test]
    fn batches_that_are_nearly_empty_are_not_tried_again_and_again() {
        let mut machine = Machine::new();
        for _ in 0..200 {
            // Long series of direct calls; and a load that goes as soon as they are queued.
            machine.run(128, [500, 2000], 100.0);
            if machine.trial.way() == Way::Batched {
                machine.run(128, [500, 2000], 2.0);
                machine.trial.pause();
            }
        }
        let [direct, batched] = machine.made;
        assert!(batched <= 256 && direct > 20_000, "{direct} {batched}");
    }

    #[test]
    fn a_trial_that_the_load_leaves_begins_again() {
        let mut machine = Machine::new();
        machine.run(WINDOW, [500, 400], 8.0);
        machine.trial.pause();
        assert_eq!(machine.trial.way(), Way::Direct, "the first turn");
        // The pause is in no window.
        machine.now += Duration::from_secs(5);
        machine.run(20_000, [500, 400], 8.0);
        assert_eq!(machine.trial.verdict, Way::Batched);
    }
}
