//! A node in miniature: passes over any disk and any Jobs, whatever happens between them.

use proptest::prelude::*;

use crate::plan::disk::Served;
use crate::plan::samples::from;

use super::*;

const URIS: [&str; 3] = ["hf://o/a", "hf://o/b", "hf://o/c"];

/// The copies that a world may have: two in the root, one in a namespace.
fn copy(which: usize) -> CopyKey {
    CopyKey::of(&an_entry("m", which))
}

fn an_entry(prefix: &str, which: usize) -> ModelEntry {
    let namespace = (which == 2).then(|| "ns".to_owned());
    ModelEntry { namespace, ..entry_of(&format!("{prefix}{which}"), URIS[which]) }
}

/// What may happen between two passes.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// Each Job goes one step on; these end well, or as another initializer ends, or fail.
    Jobs(Folder, bool),
    /// Jobs in deletion are gone.
    Gone,
    /// Somebody damages the folder of a model.
    Damage(usize),
    /// Somebody deletes all that has ended, as the TTL does.
    Expire,
    /// So many seconds pass.
    Time(i64),
}

impl World {
    fn happen(&mut self, event: Event) {
        match event {
            Event::Jobs(wrote, fails) => self.jobs_go_on(wrote, fails),
            Event::Gone => self.jobs.retain(|job| !job.deleting),
            Event::Damage(which) => {
                if let Some(folder) = self.disk.models.get_mut(&copy(which)) {
                    *folder = Folder::Damaged;
                }
            }
            Event::Expire => self.jobs.retain(is_active),
            Event::Time(seconds) => self.now += seconds,
        }
    }

    fn jobs_go_on(&mut self, wrote: Folder, fails: bool) {
        let now = at(self.now);
        for job in self.jobs.iter_mut().filter(|job| !job.deleting) {
            job.phase = match &job.phase {
                JobPhase::Pending(_) => JobPhase::Running,
                JobPhase::Running if fails => JobPhase::Failed(now, Problem::new("Failed", "by chance")),
                JobPhase::Running => {
                    self.disk.incoming.insert(job.copy.clone(), wrote);
                    JobPhase::Succeeded(now)
                }
                ended => ended.clone(),
            };
        }
    }

    /// Carries out a pass, as the agent does, and checks what must hold of every single action.
    fn carry_out(&mut self, made: &mut u32) -> Result<Outcome, TestCaseError> {
        let (outcome, before) = (self.whole_pass(), self.disk.clone());
        let all = self.entries.iter().chain(&self.other_groups);
        let wanted: BTreeSet<CopyKey> = all.map(CopyKey::of).collect();
        for action in &outcome.actions {
            match action {
                Action::DeleteJob(name) => {
                    self.jobs.iter_mut().filter(|job| job.name == *name).for_each(|job| job.deleting = true);
                }
                Action::Download(key) => {
                    let active = self.jobs.iter().any(|job| job.copy == *key && is_active(job));
                    prop_assert!(!active, "a second Job for {}", key);
                    prop_assert!(self.enabled);
                    *made += 1;
                    self.disk.incoming.entry(key.clone()).or_insert(Folder::Empty);
                    self.jobs.push(JobView {
                        copy: key.clone(),
                        ..job(&format!("made-{made}"), JobPhase::Pending(None))
                    });
                }
                Action::Adopt(key) => {
                    prop_assert_eq!(self.disk.incoming.insert(key.clone(), WHOLE), Some(Folder::Bare));
                }
                Action::Place(key) => {
                    prop_assert_ne!(self.disk.models.get(key), Some(&WHOLE));
                    let whole = self.disk.incoming.remove(key);
                    prop_assert_eq!(whole, Some(WHOLE));
                    self.disk.served.entry(key.clone()).and_modify(|served| *served = Served::Outdated);
                    let replaced = self.disk.models.insert(key.clone(), WHOLE);
                    self.disk.incoming.extend(replaced.map(|folder| (key.clone(), folder)));
                }
                Action::EraseIncoming(key) => {
                    let writes =
                        |job: &JobView| matches!(job.phase, JobPhase::Pending(_) | JobPhase::Running);
                    let written = self.jobs.iter().any(|job| job.copy == *key && writes(job));
                    prop_assert!(!written, "{} is erased under its Job", key);
                    self.disk.incoming.remove(key);
                }
                Action::Serve(key) => {
                    prop_assert_eq!(self.disk.models.get(key), Some(&WHOLE));
                    self.disk.served.insert(key.clone(), Served::Current);
                }
                Action::EraseModel(key) => {
                    prop_assert!(!wanted.contains(key), "a wanted model is erased");
                    self.disk.models.remove(key);
                }
                Action::EraseServed(key) => {
                    prop_assert!(!wanted.contains(key), "what pods read is erased");
                    self.disk.served.remove(key);
                }
                Action::EraseGate(_) | Action::RemoveArea(_) => {}
                Action::Keep(_) | Action::AdoptModel(_) | Action::Link(_) => {
                    prop_assert!(false, "nothing is KServe's here: {:?}", action);
                }
            }
        }
        for copy in self.entries.iter().map(CopyKey::of) {
            let is_open = outcome.served_gates[&copy].phase == ModelStatus::ModelDownloaded;
            let is_readable = before.models.get(&copy) == Some(&WHOLE)
                && before.served.get(&copy) == Some(&Served::Current);
            prop_assert!(!is_open || is_readable, "the gate of {} is open", copy);
        }
        let keys: BTreeSet<String> = self.entries.iter().map(ModelEntry::status_key).collect();
        prop_assert_eq!(outcome.status.keys().cloned().collect::<BTreeSet<_>>(), keys);
        prop_assert!(outcome.wake.is_none_or(|wake| wake > at(self.now)), "a wake that is past never sleeps");
        self.before.clone_from(&outcome.status);
        Ok(outcome)
    }
}

fn folder() -> impl Strategy<Value = Folder> {
    prop_oneof![Just(WHOLE), Just(Folder::Damaged), Just(Folder::Bare), Just(Folder::Empty)]
}

fn folders() -> impl Strategy<Value = BTreeMap<CopyKey, Folder>> {
    prop::collection::btree_map((0..3usize).prop_map(copy), folder(), 0..4)
}

fn served() -> impl Strategy<Value = BTreeMap<CopyKey, Served>> {
    let served = prop_oneof![Just(Served::Current), Just(Served::Outdated)];
    prop::collection::btree_map((0..3usize).prop_map(copy), served, 0..4)
}

prop_compose! {
    fn a_job(index: usize)(which in 0..3usize, own in prop::bool::weighted(0.8), deleting in prop::bool::weighted(0.2),
        phase in prop_oneof![
            Just(JobPhase::Pending(None)),
            Just(JobPhase::Running),
            (0..10_000i64).prop_map(|second| JobPhase::Succeeded(at(second))),
            (0..10_000i64).prop_map(|second| JobPhase::Failed(at(second), Problem::new("Failed", "before"))),
        ]) -> JobView {
        JobView { copy: copy(which), own, deleting, ..job(&format!("old-{index}"), phase) }
    }
}

fn event() -> impl Strategy<Value = Event> {
    let wrote = prop_oneof![3 => Just(WHOLE), 1 => Just(Folder::Bare), 1 => Just(Folder::Empty)];
    prop_oneof![
        4 => (wrote, prop::bool::weighted(0.3)).prop_map(|(wrote, fails)| Event::Jobs(wrote, fails)),
        2 => Just(Event::Gone),
        1 => (0..3usize).prop_map(Event::Damage),
        1 => Just(Event::Expire),
        2 => (1..4000i64).prop_map(Event::Time),
    ]
}

fn phase_said() -> impl Strategy<Value = ModelStatus> {
    use ModelStatus::{ModelDownloadError, ModelDownloadPending, ModelDownloaded, ModelDownloading};
    prop::sample::select(vec![ModelDownloadPending, ModelDownloading, ModelDownloaded, ModelDownloadError])
}

prop_compose! {
    fn a_world()(wanted in prop::collection::vec(any::<bool>(), 3), others in prop::collection::vec(any::<bool>(), 3),
        models in folders(), incoming in folders(), served in served(),
        jobs in (a_job(0), a_job(1), a_job(2)), count in 0..4usize,
        said in prop::collection::vec(phase_said(), 3)) -> World {
        let entries = |which: &[bool], prefix: &str| -> Vec<ModelEntry> {
            (0..3).filter(|at| which[*at]).map(|at| an_entry(prefix, at)).collect()
        };
        let detail = || from(json!({"attempts": 2, "finished": at(9_000).to_string(), "nextTry": at(9_240).to_string()}));
        let entries_own = entries(&wanted, "m");
        World {
            before: entries_own.iter().zip(said).map(|(e, phase)| (e.status_key(), (phase, detail()))).collect(),
            entries: entries_own,
            other_groups: entries(&others, "o"),
            disk: Inventory { models, incoming, served, ..Inventory::default() },
            jobs: <[JobView; 3]>::from(jobs).into_iter().take(count).collect(),
            ..world()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_every_wanted_model_is_complete_in_the_end_and_then_nothing_is_done(
        start in a_world(), events in prop::collection::vec(event(), 0..25),
    ) {
        let (mut world, mut made) = (start, 0);
        for event in events {
            world.happen(event);
            world.carry_out(&mut made)?;
        }
        for _ in 0..12 {
            for event in [Event::Jobs(WHOLE, false), Event::Gone, Event::Time(4000)] {
                world.happen(event);
                world.carry_out(&mut made)?;
            }
        }
        for entry in &world.entries {
            prop_assert_eq!(world.disk.models.get(&CopyKey::of(entry)), Some(&WHOLE), "{:?}", world.jobs);
            prop_assert_eq!(world.before[&entry.status_key()].0, ModelStatus::ModelDownloaded);
            prop_assert_eq!(world.disk.served.get(&CopyKey::of(entry)), Some(&Served::Current));
        }
        let of_others: BTreeSet<CopyKey> = world.other_groups.iter().map(CopyKey::of).collect();
        let left = |folders: &BTreeMap<CopyKey, Folder>| folders.keys().filter(|key| !of_others.contains(*key)).count();
        let own = world.entries.iter().filter(|e| !of_others.contains(&CopyKey::of(e))).count();
        prop_assert_eq!(left(&world.disk.models), own, "what nobody wants is erased");
        prop_assert_eq!(left(&world.disk.incoming), 0);
        let is_left = |copy: &&CopyKey| !of_others.contains(*copy);
        prop_assert_eq!(world.disk.served.keys().filter(is_left).count(), own);
        let before = world.before.clone();
        let steady = world.carry_out(&mut made)?;
        prop_assert_eq!(steady.actions, vec![]);
        prop_assert_eq!(steady.status, before);
    }
}
