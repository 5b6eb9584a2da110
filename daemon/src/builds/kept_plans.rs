//! The last plans that a user was told of, for a moment: what is begun then is what was shown, without asking Portage again.

use super::plan::Plan;
use crate::api_builds::PlanOption;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A plan of a large machine is some megabytes.
const KEPT_MAX: usize = 2;
/// A user who is asked answers by then, or asks again.
const KEPT_FOR: Duration = Duration::from_secs(3600);

#[derive(Debug)]
struct Kept {
    number: u64,
    asked: (Vec<String>, Vec<PlanOption>),
    since: Instant,
    plan: Arc<Plan>,
}

/// Plans by number.
#[derive(Debug, Default)]
pub(super) struct KeptPlans {
    kept: Mutex<(u64, VecDeque<Kept>)>,
}

impl KeptPlans {
    /// Keeps a plan of these atoms and options; the answer is its number.
    pub(super) fn keep(&self, atoms: &[String], options: &[PlanOption], plan: &Arc<Plan>) -> u64 {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, plans) = &mut *kept;
        *last += 1;
        let asked = (atoms.to_vec(), options.to_vec());
        plans.push_back(Kept { number: *last, asked, since: Instant::now(), plan: Arc::clone(plan) });
        while plans.len() > KEPT_MAX {
            plans.pop_front();
        }
        *last
    }

    /// The plan of this number, if it is of these atoms and options and not too old; it is kept no longer.
    pub(super) fn take(&self, number: u64, atoms: &[String], options: &[PlanOption]) -> Option<Arc<Plan>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, plans) = &mut *kept;
        plans.retain(|plan| plan.since.elapsed() < KEPT_FOR);
        let same = |plan: &Kept| plan.number == number && plan.asked.0 == atoms && plan.asked.1 == options;
        let at = plans.iter().position(same)?;
        plans.remove(at).map(|kept| kept.plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::time::SystemTime;

    fn plan() -> Arc<Plan> {
        let (packages, header) = (Vec::new(), BTreeMap::new());
        Arc::new(Plan { packages, header, begun: SystemTime::now(), foreign: None, captured: Default::default() })
    }

    #[test]
    fn a_plan_is_carried_out_once_by_who_was_told_of_it() {
        let (plans, world) = (KeptPlans::default(), vec!["@world".to_owned()]);
        let (first, second) = (plan(), plan());
        let number = plans.keep(&world, &PlanOption::UPDATE, &first);
        assert!(plans.take(number, &world, &[]).is_none(), "another question");
        assert!(plans.take(number + 1, &world, &PlanOption::UPDATE).is_none());
        let other = plans.keep(&world, &[], &second);
        assert!(Arc::ptr_eq(&plans.take(number, &world, &PlanOption::UPDATE).unwrap(), &first));
        assert!(plans.take(number, &world, &PlanOption::UPDATE).is_none());
        plans.keep(&world, &[], &first);
        plans.keep(&world, &[], &first);
        assert!(plans.take(other, &world, &[]).is_none(), "only the last ones are kept");
    }
}
