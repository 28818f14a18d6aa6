//! Every word that stands as a condition's type, as a reason in a status, or as an Event's reason, with what
//! it means and what to do. The reference in `docs/` is made from this list, and metrics know no other words.

/// A word of the list. There is no other way to one than the constants of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason(&'static str);

impl Reason {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        self.0
    }
}

/// Where people meet a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// The type of a condition of caches, and the reason of a Warning Event.
    Cache,
    /// The same of node groups.
    Group,
    /// The same of both.
    Both,
    /// The reason of condition `Ready` of caches.
    ReadyCache,
    /// The reason of condition `Ready` of node groups.
    ReadyGroup,
    /// The reason of a copy on a node; of a Warning Event, too, when the download failed.
    Copy,
    /// The reason of a copy whose download failed, and of the Warning Event about it.
    Failure,
    /// The reason of a disk in the status of its node.
    Disk,
    /// The reason of an Event alone.
    Event,
    /// The reason in the termination message of a pod's gate.
    Gate,
}

/// A word with its meaning.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The word.
    pub reason: Reason,
    /// Where people meet it.
    pub seen: Seen,
    /// What it means.
    pub meaning: &'static str,
    /// What to do.
    pub remedy: &'static str,
}

macro_rules! reasons {
    ($($name:ident = $word:literal, $seen:ident: $meaning:literal, $remedy:literal;)+) => {
        $(
            #[doc = $meaning]
            pub const $name: Reason = Reason($word);
        )+

        /// All words, in the order of the reference.
        pub const ALL: &[Entry] = &[
            $(Entry { reason: $name, seen: Seen::$seen, meaning: $meaning, remedy: $remedy },)+
        ];
    };
}

reasons! {
    NODE_GROUP_NOT_FOUND = "NodeGroupNotFound", Cache:
        "A node group that the cache names does not exist; its other groups work.",
        "Make the group, or take its name out of `nodeGroups`.";
    INSUFFICIENT_CAPACITY = "InsufficientCapacity", Cache:
        "The model does not fit on a node beside what is planned there, or never fits.",
        "Delete a cache of the group, or raise its `storageLimit`.";
    SOURCE_NOT_ALLOWED = "SourceNotAllowed", Cache:
        "A namespace's cache has a source that the platform does not allow there.",
        "Use one of those that the message names; the platform may set `localModelEgress`.";
    NAMESPACE_LIMIT_REACHED = "NamespaceLimitReached", Cache:
        "The model does not fit on a node beside what other caches of its namespace take of the group's `namespaceStorageLimit`.",
        "Delete a cache of the namespace, or have the share raised: `namespaceStorageLimit` of the group, else `localModelNamespaceStorageLimit` of the settings.";
    NODE_LIST_FULL = "NodeListFull", Cache:
        "The list of a node has no space for the cache, or for what has changed in it: a list is at most 1 MiB, a quarter of it for each namespace.",
        "Delete a cache of the group, or make `storage.parameters` shorter.";
    SPEC_TOO_LARGE = "SpecTooLarge", Cache:
        "What nodes are to be told of the cache has more than 8 KiB; it is kept nowhere.",
        "Make the field that the message names shorter.";
    INVALID_MODEL_SIZE = "InvalidModelSize", Cache:
        "`modelSize` is nothing that room can be kept for.",
        "Write there how many bytes the model has, for example `10Gi`.";
    MODEL_SIZE_TOO_SMALL = "ModelSizeTooSmall", Cache:
        "The model is larger than `modelSize` says; it is planned with its real size.",
        "Set `modelSize` to the size that the message names.";
    VOLUMES_FAILED = "VolumesFailed", Cache:
        "The API server refused a volume or claim of the cache.",
        "The message holds its words; it is tried again.";
    NAME_CONFLICT = "NameConflict", Both:
        "An object of somebody else's has a name that is needed.",
        "Remove that object, or give this one another name.";
    VOLUMES_TERMINATING = "VolumesTerminating", Both:
        "A volume or claim of an earlier object of this name is still in deletion.",
        "It goes by itself; where it does not, delete the pods that use the claim.";
    VOLUMES_OUTDATED = "VolumesOutdated", Both:
        "The volume specs of a node group were changed; volumes keep what the group said when they were made.",
        "Put the specs back, or make a new node group with the new ones.";
    SERVING_CLAIM_TOO_WIDE = "ServingClaimTooWide", Cache:
        "KServe or an earlier version made a claim through which pods of its namespace can read all models of the disk.",
        "Scale the workloads of the pods that the message names to 0 and up again: the claim is replaced when no pod uses it.";
    DELETION_WAITS = "DeletionWaits", Cache:
        "The cache is in deletion, and something uses it; it stays, with its copies, until nothing does.",
        "Delete the services and pods that use it.";
    AGENT_NOT_RUNNING = "AgentNotRunning", Both:
        "The agent of a node group does not run on a node; the message holds the kubelet's or scheduler's words.",
        "Do what these words ask for: make the folder, mend the image, free room, or tolerate the taint.";
    PROGRESSING = "Progressing", Cache: "True while copies are still to come by themselves.", "Wait.";
    DEGRADED = "Degraded", Cache:
        "True when something does not come right by itself, also while `Ready` is true. Its reason is a word of these \
         tables and, except for `NodeNotReady`, a Warning Event.",
        "Do what the message says.";
    CREDENTIALS_NOT_READY = "CredentialsNotReady", Cache:
        "The credentials that a namespace cache names cannot be given to its download Jobs.",
        "Make or mend the secret or service account that the message names.";
    DISK_UNUSABLE = "DiskUnusable", Group: "The disk of a node cannot be used.",
        "Do what the message says: it names node, folder and user id.";
    NO_NODE_AFFINITY = "NoNodeAffinity", Both:
        "`persistentVolumeSpec.nodeAffinity.required` of the group is missing or matches no node.",
        "Say there which nodes belong to the group.";
    NO_PATH = "NoPath", Both:
        "`persistentVolumeSpec` of the group has no `local.path`.",
        "Say there in which folder of the nodes models are kept.";
    INVALID_QUANTITY = "InvalidQuantity", Both:
        "A quantity of the group's volume specs cannot be read.",
        "Make a new node group: volume specs cannot be changed.";
    INVALID_STORAGE_LIMIT = "InvalidStorageLimit", Group:
        "`storageLimit` cannot be read; until it can, nothing new is planned.",
        "Write a quantity there, for example `1700G`.";
    STORAGE_LIMIT_EXCEEDED = "StorageLimitExceeded", Group:
        "More is planned on a node than `storageLimit` allows; it stays, and nothing new is planned there.",
        "Delete caches of the group, or raise `storageLimit`.";
    STORAGE_LIMIT_TOO_LARGE = "StorageLimitTooLarge", Group:
        "`storageLimit` is more than the disk of a node holds: planned models may not fit on it.",
        "Lower `storageLimit` to the size of the smallest disk.";
    AGENT_NOT_APPLIED = "AgentNotApplied", Group:
        "The API server refused the group's agents or their volume.",
        "The message holds its words; it is tried again.";

    AVAILABLE = "Available", ReadyCache:
        "At least one copy is available, and no node that is ready lacks its copy.", "Nothing.";
    SETTLED = "Settled", ReadyCache: "Of condition `Progressing`: no downloads in progress or pending.", "Nothing.";
    BLOCKED = "Blocked", ReadyCache: "Of condition `Progressing`: downloads cannot start.",
        "Condition `Degraded` gives the cause.";
    AS_EXPECTED = "AsExpected", ReadyCache: "Of condition `Degraded`: no problems.", "Nothing.";
    DOWNLOADING = "Downloading", ReadyCache: "At least one copy is being downloaded, and none has failed.", "Wait.";
    DOWNLOAD_PENDING = "DownloadPending", ReadyCache: "Downloads have not started yet.", "Wait.";
    DISABLED = "Disabled", ReadyCache: "Caching is disabled, and nothing new is planned.",
        "Set `enabled` in section `localModel` of ConfigMap `inferenceservice-config`.";
    NO_NODES = "NoNodes", ReadyCache: "No node matches the node groups.",
        "Label a node, or fix the node affinity of the group.";
    NODE_NOT_READY = "NodeNotReady", ReadyCache:
        "Copies are on nodes that are not ready. A cache is `Ready` all the same while the others are available, and \
         `Degraded`.",
        "Check the node.";
    AGENTS_APPLIED = "AgentsApplied", ReadyGroup:
        "Volumes and agents are up to date, and every agent can use its disk.", "Nothing.";
    AGENTS_STARTING = "AgentsStarting", ReadyGroup:
        "Agents have not reported their disks yet.",
        "Wait; condition `AgentNotRunning` says why one does not start.";

    DOWNLOAD_FAILED = "DownloadFailed", Failure: "A download failed; the initializer gave no better reason.",
        "The message holds the last line of its log; it is tried again.";
    JOB_FAILED = "JobFailed", Failure: "A download Job failed, and none of its pods says why.",
        "Look at the Job's Events.";
    POD_FAILED = "PodFailed", Failure: "A download pod failed before its container ran.", "Look at the pod.";
    BACKOFF_LIMIT_EXCEEDED = "BackoffLimitExceeded", Failure:
        "The pods of a download Job failed and are gone.", "Look at the Job's Events.";
    DEADLINE_EXCEEDED = "DeadlineExceeded", Failure: "A download Job took longer than half an hour and a second for each MiB of `modelSize`; it is tried again and goes on where it stopped.",
        "Check how fast the source is, and whether `modelSize` is right.";
    OOM_KILLED = "OOMKilled", Failure: "The download container used more memory than its limit.",
        "Raise the limit in the ClusterStorageContainer.";
    EVICTED = "Evicted", Failure: "The kubelet evicted the download pod.", "Look what the node was short of.";
    NOTHING_DOWNLOADED = "NothingDownloaded", Failure: "A Job succeeded, but wrote no complete model.",
        "Look whether the initializer writes into the folder that it is given.";
    COPY_VANISHED = "CopyVanished", Copy: "A copy that was complete is not any more; it is fetched again.",
        "Find out who changes files on the disk.";
    COPY_DAMAGED = "CopyDamaged", Copy: "Files of a copy that was complete are damaged; these alone are fetched again.",
        "Look at the disk's health where it happens again.";
    COPY_NOT_SERVED = "CopyNotServed", Copy: "A complete copy cannot be linked to the folder that pods mount; it is tried again.",
        "The message holds the system's words: free some space, or give the agent's user id write access.";
    JOB_TERMINATING = "JobTerminating", Copy: "The Job of an earlier download is in deletion.", "Wait.";
    JOB_REFUSED = "JobRefused", Copy: "The API server refuses the download Job; it is tried again.",
        "The message holds the words of the quota or the admission policy: make room, or let the Job through.";
    POD_REFUSED = "PodRefused", Copy: "The API server refuses the pods of the download Job; Kubernetes tries again.",
        "The message holds the words of the quota or the admission policy: make room, or let the pods through.";
    UNSCHEDULABLE = "Unschedulable", Copy: "The scheduler finds no place for the download pod.",
        "The message holds its words.";
    SECRET_NOT_FOUND = "SecretNotFound", Copy: "A secret that the download needs does not exist.",
        "Create the secret in the namespace that the message names.";
    SECRET_KEY_NOT_FOUND = "SecretKeyNotFound", Copy: "A secret lacks a key that the download needs.",
        "Put the key that the message names into the secret.";
    SECRET_INVALID = "SecretInvalid", Copy: "A secret holds something that cannot be read.",
        "Mend the key that the message names.";
    SERVICE_ACCOUNT_NOT_FOUND = "ServiceAccountNotFound", Copy: "The cache's service account does not exist.",
        "Make it where the message says, or take `serviceAccountName` out of the cache.";
    CREDENTIALS_UNREADABLE = "CredentialsUnreadable", Copy: "The credentials could not be read from the API server.",
        "It is tried again; the message holds the answer.";
    CREDENTIALS_NOT_COPIED = "CredentialsNotCopied", Copy:
        "The operator has not yet copied the credentials of a namespace cache to its download Jobs.",
        "Wait; where it lasts, look at the operator's log.";
    NOT_WANTED = "NotWanted", Copy: "The list of the node is about to change: no Job is made for the copy.", "Wait.";
    CREDENTIALS_FORBIDDEN = "CredentialsForbidden", Copy:
        "The operator may not read secrets of the cache's namespace.",
        "Bind ClusterRole `localmodel-operator-credentials` in that namespace.";
    CONTAINER_CONFIG = "CreateContainerConfigError", Copy: "The download container cannot be made.",
        "The message holds the kubelet's words.";
    CONTAINER_ERROR = "CreateContainerError", Copy: "The download container cannot be made.",
        "The message holds the kubelet's words.";
    IMAGE_PULL_BACK_OFF = "ImagePullBackOff", Copy:
        "The initializer's image cannot be pulled; the kubelet tries again.",
        "Fix its name, or name a pull secret in `localModelAgentPod.imagePullSecrets`.";
    INVALID_IMAGE_NAME = "InvalidImageName", Copy: "The initializer's image has no valid name.", "Mend its name.";
    KSERVES_COPY_DAMAGED = "KServesCopyDamaged", Gate:
        "The copy that KServe made for a namespace's services is not whole any more.",
        "Delete the service's claim and its pods: they come back with the namespace's own copy.";

    DISK_NOT_RESPONDING = "DiskNotResponding", Disk:
        "The disk has not answered for a minute; nothing is known of the copies on it.",
        "Read the node's kernel log, then replace the disk or restart the node.";
    DISK_NOT_WRITABLE = "DiskNotWritable", Disk: "The agent cannot write to the node group's disk.",
        "Give the user id that the message names write access, or mend the disk. A folder that a service's pod has mounted before the agent gets its group when both pods are deleted.";
    INVALID_NAMESPACE = "InvalidNamespace", Copy: "The entry names a namespace that cannot exist.",
        "Look who else writes LocalModelNodes.";

    INVALID_SOURCE = "InvalidSource", Failure: "`sourceModelUri` is not valid, or nothing downloads its scheme; also a condition of the cache.", "Make a cache with another one.";
    UNSUPPORTED_SCHEME = "UnsupportedScheme", Failure: "The scheme of `sourceModelUri` is not supported.",
        "Use another source, or a ClusterStorageContainer that supports it.";
    INVALID_CONFIGURATION = "InvalidConfiguration", Failure: "A setting of the downloader is not valid.",
        "Mend the variable that the message names.";
    REPOSITORY_NOT_FOUND = "RepositoryNotFound", Failure: "The repository does not exist, or is private.",
        "Check its name and the token.";
    REVISION_NOT_FOUND = "RevisionNotFound", Failure: "The repository has no such revision.", "Check its name.";
    FILE_NOT_FOUND = "FileNotFound", Failure: "A file of the commit does not exist.", "Check the source.";
    NOT_FOUND = "NotFound", Failure: "The source does not exist, or holds nothing.", "Check its name.";
    SOURCE_CHANGED = "SourceChanged", Failure: "The source changed while it was downloaded.", "It is tried again.";
    REPOSITORY_GATED = "RepositoryGated", Failure: "The repository is gated.",
        "Accept its licence on the page that the message names, and give a token.";
    TOKEN_MISSING = "TokenMissing", Failure: "The repository needs a token, and none is given.",
        "Put one into key `HF_TOKEN` of the secret that the ClusterStorageContainer names.";
    TOKEN_INVALID = "TokenInvalid", Failure: "The hub does not accept the token.", "Replace it.";
    ACCESS_DENIED = "AccessDenied", Failure: "The credentials may not read the source.",
        "Give them read access, or use others.";
    SOURCE_REFUSED = "SourceRefused", Failure: "The source gave an answer that ends the download.",
        "The message holds the answer.";
    SOURCE_UNAVAILABLE = "SourceUnavailable", Failure: "The source could not be reached, or failed, time and again.",
        "Look at the route to it: proxy, firewall, name resolution.";
    RATE_LIMITED = "RateLimited", Failure: "The source limits how often this address or token may ask.",
        "Wait, or use a token with a higher limit.";
    CERTIFICATE_NOT_TRUSTED = "CertificateNotTrusted", Failure: "The certificate of the source is not trusted.",
        "Name your certificate authority: `storageInitializer.caBundleConfigMapName` in ConfigMap `inferenceservice-config`, or `SSL_CERT_FILE`.";
    HOST_NOT_FOUND = "HostNotFound", Failure: "The name of the source's host has no address.",
        "Check the host in the URI or the endpoint, and the name resolution of the job namespace.";
    CONNECTION_REFUSED = "ConnectionRefused", Failure: "The source's host refuses connections.",
        "Check host and port in the URI or the endpoint.";
    PROXY_FAILED = "ProxyFailed", Failure: "The proxy cannot be reached, or refuses the request.",
        "Check `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` of the ClusterStorageContainer.";
    ADDRESS_REFUSED = "AddressRefused", Failure:
        "The source is, or redirects to, an internal address: loopback, link-local or a metadata service.",
        "Use another source; the platform may set `localModelEgress.internalAddresses`.";
    PLAIN_HTTP_REFUSED = "PlainHttpRefused", Failure: "The source is asked by plain http, which is not allowed.",
        "Use https; the platform may set `localModelEgress.plainHttp`.";
    SOURCE_TOO_SLOW = "SourceTooSlow", Failure: "The source sends fewer bytes than any source has to.",
        "Look at the route to it, or use another source. It is tried again.";
    NOTHING_SELECTED = "NothingSelected", Failure: "The source has no file that is to be downloaded.",
        "Mend the allow and ignore patterns.";
    TOO_LARGE = "TooLarge", Failure: "The source, or what an archive unpacks to, has more bytes than the cache may take; what came of it is erased.",
        "Make a cache with a larger `modelSize`, or choose fewer files by `STORAGE_ALLOW_PATTERNS`.";
    TOO_MANY_FILES = "TooManyFiles", Failure: "The source has more files than a download may take; what came of it is erased.",
        "Choose fewer by `STORAGE_ALLOW_PATTERNS`, or set `LOCALMODEL_MAX_FILES` in the ClusterStorageContainer.";
    PATH_TOO_DEEP = "PathTooDeep", Failure: "A name in the source is too long or too deep; what came of it is erased.",
        "Use shorter names, or leave those files out by `STORAGE_IGNORE_PATTERNS`.";
    CHECKSUM_MISMATCH = "ChecksumMismatch", Failure: "A file's bytes are not what the source says, twice.",
        "Look for a proxy or a mirror that changes them.";
    UNSAFE_FILE_NAME = "UnsafeFileName", Failure: "A file of the source would be written outside its folder.",
        "Do not use this source.";
    DISK_FULL = "DiskFull", Failure: "The disk has no room for the model.",
        "Free some space: the disk holds more than its node group plans.";
    DISK_ERROR = "DiskError", Failure: "The disk refused a call.", "The message holds the system's words.";
    MANIFEST_DAMAGED = "ManifestDamaged", Failure: "The manifest of a copy cannot be read.",
        "Delete the folder that the message names.";
    NO_COPY = "NoCopy", Failure: "There is no copy to verify.", "Download it first.";
    INTERRUPTED = "Interrupted", Failure: "The downloader was told to stop.", "It is tried again, from where it was.";

    DOWNLOADED = "Downloaded", Event: "Normal, on a cache: a download to a node has ended well.", "Nothing.";
    AGENT_IMAGE_REPLACED = "AgentImageReplaced", Event:
        "Warning, on a node group: `localModelAgentImage` is KServe's agent, which cannot run as ours.",
        "Take the key away, or name an image of localmodel.";
    INVALID_EXPRESSION = "InvalidExpression", Event:
        "Warning, on a `ClusterStorageContainer`: a regular expression cannot be read, and supports nothing.",
        "Mend the expression that the message names.";
    STANDING_BACK = "StandingBack", Event:
        "Warning, on the Deployment of KServe's local-model controller: while it runs, nothing is written.",
        "Scale that Deployment to 0.";
    INVALID_SETTINGS = "InvalidSettings", Event:
        "Warning, on ConfigMap `inferenceservice-config`: a key cannot be read; the last good settings stay.",
        "Mend the key that the message names.";

    NO_AGENT = "NoAgent", Gate: "No agent has said anything about the copy on this node.",
        "Look at the agent's pod on the node.";
    NO_PROGRESS = "NoProgress", Gate: "The copy on this node has not come nearer for too long.",
        "Look at the cache's status.";
}

/// What a copy waits for that comes by itself. Every other reason of a copy that waits, also one that a kubelet has
/// made up, needs somebody to act.
const PASSING: [Reason; 6] =
    [COPY_VANISHED, COPY_DAMAGED, JOB_TERMINATING, NOT_WANTED, CREDENTIALS_NOT_COPIED, NODE_NOT_READY];

/// Whether what a copy waits for comes by itself.
pub fn passes(word: &str) -> bool {
    PASSING.iter().any(|passing| passing.as_str() == word)
}

/// A word as the reason of a condition: any initializer may have made it up, and the API server takes no blanks.
pub fn of_condition<'a>(word: Option<&'a str>, otherwise: &'static str) -> &'a str {
    let is_word = |word: &&str| {
        word.len() <= 64
            && word.starts_with(|c: char| c.is_ascii_alphabetic())
            && word.bytes().all(|c| c.is_ascii_alphanumeric())
    };
    word.filter(is_word).unwrap_or(otherwise)
}

/// What metrics say for a word that is not in the list: a kubelet, or another initializer, has made it up.
pub const OTHER: &str = "Other";

/// The word, if it is in the list.
pub fn listed(word: &str) -> &'static str {
    ALL.iter().map(|entry| entry.reason.as_str()).find(|listed| *listed == word).unwrap_or(OTHER)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_word_stands_once_and_can_be_a_reason_of_kubernetes() {
        let words: BTreeSet<&str> = ALL.iter().map(|entry| entry.reason.as_str()).collect();
        assert_eq!(words.len(), ALL.len(), "a word stands twice");
        for word in words {
            assert!(
                word.starts_with(char::is_uppercase) && word.chars().all(char::is_alphanumeric),
                "{word}"
            );
        }
    }

    #[test]
    fn a_word_that_is_not_listed_is_another() {
        assert_eq!((listed("TokenMissing"), listed("made up"), listed("")), ("TokenMissing", OTHER, OTHER));
    }
}
