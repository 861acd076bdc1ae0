//! Applies what operators want of this process.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use headless_abstractions::{
    ControlEntry, ControlSubject, ControlVersion, Error, ErrorKind, GroupName, Result, TopicName,
};
use headless_core::{Control, Environment, Next, TaskSpec};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{Plan, consumer::Group};

/// The longest that a look may take, at the start and later. A start waits no longer for a store that is away.
const LOOK: Duration = Duration::from_secs(5);

/// How this process follows what operators want of it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControlConfig {
    /// The service that it is a process of.
    pub service: String,
    /// The longest time between two looks at what is wanted. A pulse of the store tells of changes before. Default 5 s.
    pub interval: Duration,
}

impl ControlConfig {
    /// Follows what is wanted of this service.
    #[must_use]
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            interval: Duration::from_secs(5),
        }
    }

    /// With looks this far apart at most.
    #[must_use]
    pub const fn with_interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }
}

/// How far what operators want is applied in this process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ControlStatus {
    /// Everything up to this change is applied; `None` until the store has answered for the first time: until then every
    /// group is paused.
    pub applied: Option<ControlVersion>,
    /// What is wanted of subjects that this process does not have; another may.
    pub unknown: Vec<ControlSubject>,
}

/// What operators want of this process, to look at how far it is applied. Clones are handles on one.
#[derive(Clone, Debug)]
pub struct ControlHandle {
    pub(crate) steering: Arc<Steering>,
}

impl ControlHandle {
    /// How far it is applied.
    #[must_use]
    pub fn status(&self) -> ControlStatus {
        self.steering.status()
    }
}

/// What steers the groups of this process.
#[derive(Debug)]
pub(crate) struct Steering {
    control: Control,
    config: ControlConfig,
    environment: Environment,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    groups: Vec<Arc<Group>>,
    /// What is wanted, where it is known.
    wanted: Option<Wanted>,
}

/// What is wanted, as it was at a revision.
#[derive(Debug)]
struct Wanted {
    revision: ControlVersion,
    entries: Vec<ControlEntry>,
}

impl Steering {
    /// Reads what is wanted, where the plan has it followed and its store keeps it. A store that does not answer delays the
    /// start for a bounded time, and fails nothing: the groups are paused until it has.
    pub(crate) async fn begin(plan: &Plan) -> Option<ControlHandle> {
        let control = Control::of(plan.store.as_ref()?)?;
        let steering = Arc::new(Self {
            control,
            config: plan.control.clone()?,
            environment: plan.environment.clone(),
            state: Mutex::default(),
        });
        if let Err(error) = steering.look().await {
            tracing::warn!(
                service = %steering.config.service, %error,
                "what operators want is not known yet: every group is paused until the store has answered"
            );
        }
        Some(ControlHandle { steering })
    }

    /// Steers this group too, which does not run yet.
    pub(crate) fn take(&self, group: Arc<Group>) {
        let mut state = self.lock();
        match &state.wanted {
            Some(wanted) => wanted.apply(&group),
            None => group.control(|_| true, None),
        }
        state.groups.push(group);
    }

    /// Looks at what is wanted until `stop`, as the background task `control`, among the control tasks.
    pub(crate) fn run(self: &Arc<Self>, stop: CancellationToken) -> JoinHandle<()> {
        let spec = TaskSpec::new("control", self.config.interval)
            .with_wake(self.environment.wakeups.control())
            .with_control();
        let steering = self.clone();
        self.environment.background.spawn(spec, stop, move || {
            let steering = steering.clone();
            async move { steering.look().await.map(|()| Next::Wait) }
        })
    }

    /// How far it has come.
    fn status(&self) -> ControlStatus {
        let state = self.lock();
        let Some(wanted) = &state.wanted else {
            return ControlStatus::default();
        };
        let unknown = wanted.entries.iter().filter(|entry| {
            !entry.desired.is_nothing() && !state.groups.iter().any(|group| is_of(&entry.subject, group))
        });
        ControlStatus {
            applied: Some(wanted.revision),
            unknown: unknown.map(|entry| entry.subject.clone()).collect(),
        }
    }

    /// Looks whether anything has changed, and applies it then.
    async fn look(&self) -> Result<()> {
        let looking = async {
            // Read first: the list that is read after it has every change up to it.
            let revision = self.control.revision().await?;
            let known = self.lock().wanted.as_ref().map(|wanted| wanted.revision);
            if known == Some(revision) {
                return Ok(());
            }
            let entries = self.control.list(&self.config.service).await?;
            self.apply(Wanted { revision, entries });
            Ok(())
        };
        let looked = tokio::time::timeout(LOOK, looking).await;
        looked.unwrap_or_else(|_elapsed| {
            Err(Error::new(
                ErrorKind::Timeout,
                format!("the store did not say within {LOOK:?} what operators want"),
            )
            .with_operation("control"))
        })
    }

    fn apply(&self, wanted: Wanted) {
        let mut state = self.lock();
        for group in &state.groups {
            wanted.apply(group);
        }
        let (service, revision) = (&self.config.service, wanted.revision);
        tracing::info!(%service, %revision, "what operators want is applied");
        state.wanted = Some(wanted);
        drop(state);
        // Who waits for it learns of it from the next heartbeat.
        self.environment.wakeups.heartbeat().wake();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // What is wanted is replaced whole, and groups are only added: valid after any panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wanted {
    /// Makes a group run as it is wanted.
    fn apply(&self, group: &Group) {
        let of_group = || self.entries.iter().filter(|entry| is_of(&entry.subject, group));
        let is_paused = |topic: &TopicName| {
            of_group()
                .any(|entry| entry.desired.paused && topic_of(&entry.subject).is_none_or(|on| on == topic))
        };
        let concurrency = of_group().find_map(|entry| entry.desired.concurrency);
        let concurrency = concurrency.map(|most| usize::try_from(most.get()).unwrap_or(usize::MAX));
        group.control(is_paused, concurrency);
    }
}

/// Whether this is the group, or one of its topics.
fn is_of(subject: &ControlSubject, group: &Group) -> bool {
    let ControlSubject::Group { group: name, topic } = subject else {
        return false;
    };
    let is_name = |own: &GroupName| own == name;
    (is_name(&group.name) || is_name(&group.configured))
        && topic
            .as_ref()
            .is_none_or(|topic| group.topics.contains_key(topic))
}

fn topic_of(subject: &ControlSubject) -> Option<&TopicName> {
    match subject {
        ControlSubject::Group { topic, .. } => topic.as_ref(),
        _ => None,
    }
}
