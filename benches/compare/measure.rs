//! Rows in rounds that alternate between the contestants.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::contestants::{Contestant, Rig, Round};
use crate::progress::Progress;
use crate::report::{Cell, Percentile};
use crate::stats::{Spread, quantile};
use crate::work::{Row, Work};

/// How much of everything.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// How often all sockets are made anew. Where the kernel and the allocator place what belongs to a socket can
    /// change its speed by a tenth, as long as it lives.
    pub sittings: usize,
    /// Rounds of each.
    pub rounds: usize,
    /// A contestant's share of a round.
    pub slice: Duration,
    /// Operations of a round where each is timed.
    pub paced: usize,
    pub beside: usize,
    /// Connections of the row about memory.
    pub idle: usize,
    pub idle_rounds: usize,
}

impl Plan {
    pub fn all_rounds(&self) -> usize {
        self.sittings * self.rounds
    }

    pub fn new(quick: bool) -> Self {
        let ms = Duration::from_millis;
        if quick {
            let idle = 2_000;
            Self {
                sittings: 1,
                rounds: 3,
                slice: ms(4),
                paced: 30,
                beside: 4,
                idle,
                idle_rounds: 1,
            }
        } else {
            let idle = 10_000;
            Self {
                sittings: 5,
                rounds: 3,
                slice: ms(40),
                paced: 300,
                beside: 25,
                idle,
                idle_rounds: 3,
            }
        }
    }
}

/// One contestant in a row, round by round.
struct Entrant {
    place: usize,
    /// Of the current sitting.
    rig: Option<Box<dyn Rig>>,
    rounds: Vec<Taken>,
}

struct Taken {
    value: f64,
    cpu: f64,
    samples: Vec<f64>,
}

pub fn row(
    contestants: &[Box<dyn Contestant>],
    row: &Row,
    plan: &Plan,
    descriptors: usize,
    progress: &Progress,
) -> Vec<Cell> {
    let mut cells = vec![Cell::default(); contestants.len()];
    // As many at a time as there are descriptors for. The reference is in each group.
    let at_once = (descriptors / row.work.descriptors()).max(2) - 1;
    let others: Vec<usize> = (1..contestants.len()).collect();
    let groups: Vec<&[usize]> =
        if others.is_empty() { vec![&[]] } else { others.chunks(at_once).collect() };
    for group in groups {
        let entrants = std::iter::once(0).chain(group.iter().copied());
        let mut entrants: Vec<Entrant> =
            entrants.map(|place| Entrant { place, rig: None, rounds: Vec::new() }).collect();
        let mut each = None;
        for number in 0..plan.sittings {
            sitting(
                contestants,
                &mut entrants,
                row,
                plan,
                &mut each,
                &mut cells,
                |place, round| {
                    let round = number * plan.rounds + round;
                    progress.now(&row.name, contestants[place].name(), round, plan.all_rounds());
                },
            );
        }
        let reference: Vec<(f64, f64)> = match entrants.first() {
            Some(entrant) if entrant.place == 0 => {
                entrant.rounds.iter().map(|taken| (taken.value, taken.cpu)).collect()
            }
            _ => Vec::new(),
        };
        for entrant in entrants {
            cells[entrant.place] = cell(entrant.rounds, &reference);
        }
    }
    cells
}

/// Build everything anew, warm up, and take rounds in turn. `each` is how many operations a round has.
fn sitting(
    contestants: &[Box<dyn Contestant>],
    entrants: &mut Vec<Entrant>,
    row: &Row,
    plan: &Plan,
    each: &mut Option<usize>,
    cells: &mut [Cell],
    mut progress: impl FnMut(usize, usize),
) {
    // A contestant that fails is left out.
    let mut keep = |entrants: &mut Vec<Entrant>,
                    run: &mut dyn FnMut(&mut Entrant) -> Result<(), String>| {
        entrants.retain_mut(|entrant| match run(entrant) {
            Ok(()) => true,
            Err(reason) => {
                cells[entrant.place].reason = Some(reason);
                false
            }
        });
    };
    let failed = |reason| format!("failed: {reason}");
    entrants.iter_mut().for_each(|entrant| entrant.rig = None);
    keep(entrants, &mut |entrant| {
        progress(entrant.place, 0);
        entrant.rig = Some(contestants[entrant.place].rig(row.setting, row.work)?);
        Ok(())
    });
    keep(entrants, &mut |entrant| {
        let rig = entrant.rig.as_deref_mut().expect("made above");
        let count = match *each {
            Some(count) => count,
            None => *each.insert(calibrate(rig, row.work, plan).map_err(failed)?),
        };
        rig.round(count).map(drop).map_err(failed)
    });
    let Some(each) = *each else { return };
    for round in 0..plan.rounds {
        if entrants.is_empty() {
            return;
        }
        // The order stays, and another one begins.
        let first = round % entrants.len();
        entrants.rotate_left(first);
        keep(entrants, &mut |entrant| {
            progress(entrant.place, round + 1);
            let rig = entrant.rig.as_deref_mut().expect("made above");
            entrant.rounds.push(timed(rig, each).map_err(failed)?);
            Ok(())
        });
        entrants.sort_by_key(|entrant| entrant.place);
    }
}

/// How many operations of this one fit into a slice. All of them make as many, since a round's start and end
/// cost something too.
fn calibrate(rig: &mut dyn Rig, work: Work, plan: &Plan) -> Result<usize, String> {
    match work {
        Work::Paced => return Ok(plan.paced),
        Work::Beside { .. } => return Ok(plan.beside),
        _ => {}
    }
    let mut each = 16;
    loop {
        let took = rig.round(each)?.took;
        if took >= plan.slice / 4 || each > 1 << 20 {
            let fits = plan.slice.as_secs_f64() / took.as_secs_f64() * each as f64;
            return Ok((fits as usize).max(4));
        }
        each *= 2;
    }
}

fn timed(rig: &mut dyn Rig, each: usize) -> Result<Taken, String> {
    let before = processor_time();
    let Round { took, operations, mut samples } = rig.round(each)?;
    let cpu = (processor_time() - before).as_nanos() as f64 / operations as f64;
    samples.sort_by(f64::total_cmp);
    let value = match quantile(&samples, 0.5) {
        Some(median) => median,
        None => took.as_nanos() as f64 / operations as f64,
    };
    Ok(Taken { value, cpu, samples })
}

/// Of all threads, user and system.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// `reference` is value and processor time of the same rounds.
fn cell(rounds: Vec<Taken>, reference: &[(f64, f64)]) -> Cell {
    let neighbors = || reference.iter().zip(&rounds);
    let ratios = neighbors().map(|(theirs, mine)| theirs.0 / mine.value).collect();
    let cpu_ratios = neighbors().map(|(theirs, mine)| theirs.1 / mine.cpu).collect();
    let mut samples: Vec<f64> =
        rounds.iter().flat_map(|taken| taken.samples.iter().copied()).collect();
    samples.sort_by(f64::total_cmp);
    let percentiles = [1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9];
    let percentiles = percentiles.into_iter().filter_map(|percent| {
        Some(Percentile { percent, nanoseconds: quantile(&samples, percent / 100.0)? })
    });
    Cell {
        reason: None,
        value: Spread::of(rounds.iter().map(|taken| taken.value).collect()),
        ratio: Spread::of(ratios),
        cpu: Spread::of(rounds.iter().map(|taken| taken.cpu).collect()),
        cpu_ratio: Spread::of(cpu_ratios),
        percentiles: percentiles.collect(),
    }
}
