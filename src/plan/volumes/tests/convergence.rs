//! A cluster in miniature: `step` against a binder that works when it likes, from any state that
//! people, crashes and KServe can leave behind.

use super::*;

#[derive(Clone, Debug)]
struct Cluster {
    volume: Option<PersistentVolume>,
    claim: Option<PersistentVolumeClaim>,
    made: u32,
}

impl Cluster {
    /// What the plan's step does, as the operator carries it out.
    fn act(&mut self, wanted: &Pair, step: &Step) {
        match step {
            Step::Done | Step::Wait(_) | Step::Conflict(_) => {}
            Step::CreateVolume => self.volume = Some(wanted.volume.clone()),
            Step::CreateClaim => {
                self.made += 1;
                let mut claim = wanted.claim.clone();
                claim.metadata.uid = Some(format!("made-{}", self.made));
                claim.status = from(json!({"phase": "Pending"}));
                self.claim = Some(claim);
            }
            Step::AdoptVolume => adopt(self.volume.as_mut().unwrap(), &wanted.volume.metadata),
            Step::AdoptClaim => adopt(self.claim.as_mut().unwrap(), &wanted.claim.metadata),
            Step::FreeVolume => claim_ref(self.volume.as_mut().unwrap()).uid = None,
            Step::DeleteClaim | Step::ReplaceClaim(_) | Step::NarrowClaim(_) => {
                delete(self.claim.as_mut().unwrap());
            }
            Step::DeleteVolume => delete(self.volume.as_mut().unwrap()),
        }
    }

    /// One look of Kubernetes' controllers at the pair.
    fn bind(&mut self) {
        if self.claim.as_ref().is_some_and(|claim| is_deleting(&claim.metadata)) {
            self.claim = None; // no pod uses it
        }
        let uid = self.claim.as_ref().and_then(|claim| claim.metadata.uid.clone());
        if let Some(volume) = &mut self.volume {
            let theirs = claim_ref(volume).uid.clone();
            if is_deleting(&volume.metadata) && (theirs.is_none() || theirs != uid) {
                self.volume = None;
            }
        }
        self.phases(uid.as_deref());
    }

    fn phases(&mut self, uid: Option<&str>) {
        let (Some(volume), claim) = (&mut self.volume, &mut self.claim) else {
            lose(self.claim.as_mut());
            return;
        };
        let theirs = claim_ref(volume).uid.clone();
        let phase = match (&theirs, claim) {
            (None, Some(claim)) if volume_name(claim).is_none() => {
                claim_ref(volume).uid = uid.map(Into::into);
                claim.spec.as_mut().unwrap().volume_name = volume.metadata.name.clone();
                claim.status = from(json!({"phase": "Bound"}));
                "Bound"
            }
            (None, claim) => {
                lose(claim.as_mut());
                "Available"
            }
            (Some(theirs), Some(claim)) if Some(theirs.as_str()) == uid => {
                claim.spec.as_mut().unwrap().volume_name = volume.metadata.name.clone();
                claim.status = from(json!({"phase": "Bound"}));
                "Bound"
            }
            (Some(_), claim) => {
                lose(claim.as_mut());
                "Released"
            }
        };
        volume.status = from(json!({ "phase": phase }));
    }
}

/// A claim that was bound has lost its volume.
fn lose(claim: Option<&mut PersistentVolumeClaim>) {
    if let Some(claim) = claim.filter(|claim| volume_name(claim).is_some()) {
        claim.status = from(json!({"phase": "Lost"}));
    }
}

fn adopt<K: kube::Resource>(object: &mut K, wanted: &ObjectMeta) {
    object.meta_mut().labels.clone_from(&wanted.labels);
    object.meta_mut().owner_references.clone_from(&wanted.owner_references);
}

fn delete<K: kube::Resource>(object: &mut K) {
    object.meta_mut().deletion_timestamp = Some(Time(at(9)));
}

fn claim_ref(volume: &mut PersistentVolume) -> &mut ObjectReference {
    volume.spec.as_mut().unwrap().claim_ref.as_mut().unwrap()
}

fn volume_name(claim: &PersistentVolumeClaim) -> Option<&String> {
    claim.spec.as_ref()?.volume_name.as_ref()
}

/// Whose an object is at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Ours,
    Earlier,
    Unlabelled,
    Unowned,
    Another,
    /// KServe's, with the volume at the root of the disk.
    AtRoot,
    /// Ours, with the volume at the root of the disk: an earlier version's, if it is for services.
    Wide,
}

fn belonging<K: kube::Resource>(whose: Whose, object: K) -> K {
    match whose {
        Whose::Ours | Whose::Wide => object,
        Whose::Earlier => earlier(object),
        Whose::Unlabelled => unlabelled(object),
        Whose::Unowned | Whose::AtRoot => unowned(object),
        Whose::Another => of_another(object),
    }
}

fn whose() -> impl Strategy<Value = Whose> {
    use Whose::{Another, AtRoot, Earlier, Ours, Unlabelled, Unowned, Wide};
    prop_oneof![4 => Just(Ours), 2 => Just(Wide), 2 => Just(Earlier), 1 => Just(Unlabelled), 1 => Just(Unowned), 1 => Just(Another), 2 => Just(AtRoot)]
}

/// The pair of a cluster cache, of a namespace cache, or of services.
fn pair(kind: usize) -> Pair {
    [wanted, wanted_in_namespace, wanted_for_services][kind]()
}

prop_compose! {
    fn a_volume(kind: usize)(whose in whose(), uid in prop_oneof![Just(None), Just(Some("claim-uid")),
        Just(Some("gone"))], is_deleting in prop::bool::weighted(0.2), phase in prop_oneof![Just("Pending"),
        Just("Available"), Just("Bound"), Just("Released")]) -> PersistentVolume {
        let mut volume = belonging(whose, volume_of(&pair(kind), phase));
        match whose {
            Whose::AtRoot => volume = unowned(at_root(volume)),
            Whose::Wide if kind == 2 => volume = at_root(volume),
            _ => {}
        }
        claim_ref(&mut volume).uid = uid.map(Into::into);
        if is_deleting { deleting(volume) } else { volume }
    }
}

prop_compose! {
    fn a_claim(kind: usize)(whose in whose(), is_bound in any::<bool>(), is_deleting in
        prop::bool::weighted(0.2), phase in prop_oneof![Just("Pending"), Just("Bound"), Just("Lost")])
        -> PersistentVolumeClaim {
        let pair = pair(kind);
        let mut claim = belonging(whose, if is_bound { bound_of(&pair).1 } else { claim_of(&pair, "Pending") });
        if is_bound {
            claim.status = from(json!({ "phase": phase }));
        }
        if is_deleting { deleting(claim) } else { claim }
    }
}

/// A pair to make, and what may be there under its names.
fn a_start() -> impl Strategy<Value = (Pair, Option<PersistentVolume>, Option<PersistentVolumeClaim>)> {
    (0..3usize).prop_flat_map(|kind| {
        let (volume, claim) = (a_volume(kind), a_claim(kind));
        (Just(pair(kind)), prop::option::of(volume), prop::option::of(claim))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn from_any_state_the_pair_is_bound_in_the_end_and_nothing_of_others_is_touched(
        (wanted, volume, claim) in a_start(),
        order in prop::collection::vec(any::<bool>(), 40),
    ) {
        let mut cluster = Cluster { volume, claim, made: 0 };
        let is_foreign_volume = |v: &Option<PersistentVolume>| v.as_ref().is_some_and(|v| {
            volume_relation(&wanted, v) == Relation::Foreign
        });
        let is_foreign_claim = |cluster: &Cluster| cluster.claim.as_ref().is_some_and(|c| {
            claim_relation(&wanted, c, cluster.volume.as_ref()) == Relation::Foreign
        });
        let take = |cluster: &mut Cluster| {
            let step = step(&wanted, cluster.volume.as_ref(), cluster.claim.as_ref());
            let before = cluster.clone();
            cluster.act(&wanted, &step);
            if is_foreign_volume(&before.volume) {
                prop_assert_eq!(&before.volume, &cluster.volume, "{:?} touched another's volume", step);
            }
            if is_foreign_claim(&before) {
                prop_assert_eq!(&before.claim, &cluster.claim, "{:?} touched another's claim", step);
                prop_assert_eq!(&before.volume, &cluster.volume, "{:?} beside another's claim", step);
            }
            Ok(step)
        };
        for binder_first in order {
            if binder_first {
                cluster.bind();
            } else {
                take(&mut cluster)?;
            }
        }
        for _ in 0..20 {
            cluster.bind();
            take(&mut cluster)?;
        }
        let last = take(&mut cluster)?;
        if is_foreign_volume(&cluster.volume) || is_foreign_claim(&cluster) {
            prop_assert!(matches!(last, Step::Conflict(_)) || is_wait(&last), "{:?}", last);
            return Ok(());
        }
        prop_assert_eq!(&last, &Step::Done, "{:?}", cluster);
        let (volume, claim) = (cluster.volume.unwrap(), cluster.claim.unwrap());
        prop_assert_eq!(phase(&volume), Some("Bound"));
        prop_assert_eq!(phase_of_claim(&claim), Some("Bound"));
        prop_assert_eq!(claim_uid(&volume), claim.metadata.uid.as_deref());
        prop_assert_eq!(volume_relation(&wanted, &volume), Relation::Ours);
        prop_assert!(!is_wide(&wanted, &volume), "services see more than their model");
        prop_assert_eq!(claim_relation(&wanted, &claim, Some(&volume)), Relation::Ours);
    }
}
