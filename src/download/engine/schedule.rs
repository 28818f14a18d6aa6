//! Which stream fetches what next. Decisions only: no connection, no disk, no clock.
//!
//! Several files at once, the largest first, because SHA-256 is serial within a file. A stream that has a
//! file for itself asks for a long range and goes on from chunk to chunk; once there are more streams than
//! files they share, always taking the lowest chunk that is wanted, so that a file is hashed in order from
//! memory.

/// The files of a download and the streams at work on them.
#[derive(Debug)]
pub struct Schedule {
    files: Vec<File>,
    /// The files before it are settled.
    first: usize,
    settled: usize,
}

#[derive(Debug)]
struct File {
    stage: Stage,
    wanted: Vec<bool>,
    /// No chunk before it is wanted.
    lowest: usize,
    /// Chunks that are wanted.
    left: usize,
    streams: usize,
    /// Its server sends the whole file, whatever is asked for: one stream has to fetch it all.
    whole_only: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    New,
    Opening,
    Open,
    Settled,
}

/// What a free stream is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Task {
    /// Look at what there is of a file already, and tell by [`Schedule::opened`].
    Open(usize),
    /// Fetch a chunk, then ask [`Schedule::following`].
    Fetch(Claim),
}

/// A chunk that one stream fetches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The file's index.
    pub file: usize,
    /// The chunk's index in the file.
    pub chunk: usize,
    /// One request may ask for the chunks up to this one, without it.
    pub end: usize,
}

impl Schedule {
    /// For this many files, largest first.
    pub fn new(files: usize) -> Self {
        let file = || File {
            stage: Stage::New,
            wanted: Vec::new(),
            lowest: 0,
            left: 0,
            streams: 0,
            whole_only: false,
        };
        Self { files: (0..files).map(|_| file()).collect(), first: 0, settled: 0 }
    }

    /// Whether nothing is left to do.
    pub fn is_over(&self) -> bool {
        self.settled == self.files.len()
    }

    /// What a stream without a file does next; `None`: nothing at the moment.
    pub fn assign(&mut self) -> Option<Task> {
        while self.files.get(self.first).is_some_and(|file| file.stage == Stage::Settled) {
            self.first += 1;
        }
        let waiting = |file: &File| file.stage == Stage::Open && file.streams == 0 && file.left > 0;
        let rest = self.first..self.files.len();
        if let Some(index) = rest.clone().find(|index| waiting(&self.files[*index])) {
            return self.join(index);
        }
        if let Some(index) = rest.clone().find(|index| self.files[*index].stage == Stage::New) {
            self.files[index].stage = Stage::Opening;
            return Some(Task::Open(index));
        }
        let shared = rest.filter(|index| self.files[*index].may_be_joined());
        let most = shared.max_by_key(|index| self.files[*index].left / (self.files[*index].streams + 1));
        most.and_then(|index| self.join(index))
    }

    /// The next chunk for a stream that has fetched `claim`; without one it has left the file.
    pub fn following(&mut self, claim: &Claim) -> Option<Claim> {
        let file = &mut self.files[claim.file];
        let crowded = file.whole_only && file.streams > 1;
        let next = if crowded { None } else { file.take(claim.file) };
        if next.is_none() {
            file.streams -= 1;
        }
        next
    }

    /// A file can be fetched; `on_disk` says which of its chunks are there already.
    pub fn opened(&mut self, file: usize, on_disk: &[bool]) {
        let file = &mut self.files[file];
        file.wanted = on_disk.iter().map(|on_disk| !on_disk).collect();
        file.left = file.wanted.iter().filter(|wanted| **wanted).count();
        file.lowest = 0;
        file.stage = Stage::Open;
    }

    /// A file is in its place.
    pub fn settled(&mut self, file: usize) {
        self.files[file].stage = Stage::Settled;
        self.settled += 1;
    }

    /// A file's server ignores ranges.
    pub fn whole_only(&mut self, file: usize) {
        self.files[file].whole_only = true;
    }

    fn join(&mut self, index: usize) -> Option<Task> {
        let file = &mut self.files[index];
        file.streams += 1;
        file.take(index).map(Task::Fetch)
    }
}

impl File {
    fn may_be_joined(&self) -> bool {
        self.stage == Stage::Open && self.left > 0 && !(self.whole_only && self.streams > 0)
    }

    fn take(&mut self, index: usize) -> Option<Claim> {
        let chunk = self.lowest + self.wanted.get(self.lowest..)?.iter().position(|wanted| *wanted)?;
        self.wanted[chunk] = false;
        self.left -= 1;
        self.lowest = chunk + 1;
        let run = self.wanted[self.lowest..].iter().take_while(|wanted| **wanted).count();
        let end = if self.streams == 1 { self.lowest + run } else { self.lowest };
        Some(Claim { file: index, chunk, end })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn opened(chunks: &[usize]) -> Schedule {
        let mut schedule = Schedule::new(chunks.len());
        for (file, count) in chunks.iter().enumerate() {
            assert_eq!(schedule.assign(), Some(Task::Open(file)));
            schedule.opened(file, &vec![false; *count]);
            schedule.files[file].stage = Stage::Opening; // until all are open, so that none is joined
        }
        schedule.files.iter_mut().for_each(|file| file.stage = Stage::Open);
        schedule
    }

    fn fetch(task: Option<Task>) -> Claim {
        match task {
            Some(Task::Fetch(claim)) => claim,
            other => panic!("{other:?} is no chunk to fetch"),
        }
    }

    #[test]
    fn a_stream_has_a_file_for_itself_while_there_are_files() {
        let mut schedule = opened(&[3, 3]);
        assert_eq!(fetch(schedule.assign()), Claim { file: 0, chunk: 0, end: 3 });
        let second = fetch(schedule.assign());
        assert_eq!(second, Claim { file: 1, chunk: 0, end: 3 });
        assert_eq!(schedule.following(&second), Some(Claim { file: 1, chunk: 1, end: 3 }));
    }

    #[test]
    fn streams_without_a_file_share_the_one_with_most_left_and_ask_for_a_chunk_at_a_time() {
        let mut schedule = opened(&[9, 2]);
        let first = fetch(schedule.assign());
        let small = fetch(schedule.assign());
        let second = fetch(schedule.assign());
        assert_eq!(second, Claim { file: 0, chunk: 1, end: 2 });
        assert_eq!(schedule.following(&first), Some(Claim { file: 0, chunk: 2, end: 3 }));
        let small = schedule.following(&small).unwrap();
        assert_eq!(schedule.following(&small), None, "it has left the file");
        assert_eq!(fetch(schedule.assign()).file, 0);
    }

    #[test]
    fn what_is_on_the_disk_is_not_fetched_and_not_asked_for() {
        let mut schedule = Schedule::new(1);
        assert_eq!(schedule.assign(), Some(Task::Open(0)));
        assert_eq!(schedule.assign(), None, "another stream is opening it");
        schedule.opened(0, &[true, false, false, true, false]);
        let claim = fetch(schedule.assign());
        assert_eq!(claim, Claim { file: 0, chunk: 1, end: 3 });
        let claim = schedule.following(&claim).unwrap();
        assert_eq!(schedule.following(&claim), Some(Claim { file: 0, chunk: 4, end: 5 }));
    }

    #[test]
    fn a_file_that_only_comes_whole_is_left_to_one_stream() {
        let mut schedule = opened(&[9]);
        let first = fetch(schedule.assign());
        let second = fetch(schedule.assign());
        schedule.whole_only(0);
        assert_eq!(schedule.assign(), None);
        assert_eq!(schedule.following(&second), None);
        assert_eq!(schedule.following(&first).map(|claim| claim.end), Some(9));
    }

    proptest! {
        /// Whatever the order in which streams come and go, each wanted chunk is given out exactly once.
        #[test]
        fn every_wanted_chunk_is_fetched_exactly_once(
            files in prop::collection::vec(prop::collection::vec(any::<bool>(), 0..20), 1..6),
            order in prop::collection::vec(0_usize..8, 0..400),
        ) {
            let mut schedule = Schedule::new(files.len());
            let mut streams: Vec<Option<Claim>> = vec![None; 8];
            let mut fetched = BTreeSet::new();
            let last_round = (0..8).cycle().take(2000);
            for stream in order.into_iter().chain(last_round) {
                let claim = match streams[stream].take() {
                    Some(claim) => schedule.following(&claim),
                    None => match schedule.assign() {
                        Some(Task::Open(file)) => { schedule.opened(file, &files[file]); None }
                        Some(Task::Fetch(claim)) => Some(claim),
                        None => None,
                    },
                };
                if let Some(claim) = &claim {
                    prop_assert!(fetched.insert((claim.file, claim.chunk)), "{claim:?} twice");
                    prop_assert!(claim.end > claim.chunk && claim.end <= files[claim.file].len());
                }
                streams[stream] = claim;
            }
            let wanted = files.iter().enumerate().flat_map(|(file, chunks)| {
                let wanted = chunks.iter().enumerate().filter(|(_, on_disk)| !**on_disk);
                wanted.map(move |(chunk, _)| (file, chunk))
            });
            prop_assert_eq!(fetched, wanted.collect());
        }
    }
}
