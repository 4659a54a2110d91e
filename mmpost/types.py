"""The nouns of mmpost in one place. Their definitions are in `mmpost.core`; read those modules first."""

from mmpost.core.models import (
    Decoder as Decoder,
    Decoding as Decoding,
    Embedding as Embedding,
    Model as Model,
    Seen as Seen,
)
from mmpost.core.plugins import (
    Collect as Collect,
    Context as Context,
    Edit as Edit,
    Engine as Engine,
    Objective as Objective,
    Reward as Reward,
    Rollout as Rollout,
    Sampling as Sampling,
    Transform as Transform,
    Update as Update,
)
from mmpost.core.samples import (
    Batch as Batch,
    Entry as Entry,
    Frame as Frame,
    Loss as Loss,
    Origin as Origin,
    Outputs as Outputs,
    Part as Part,
    Reply as Reply,
    Sample as Sample,
    Split as Split,
    Value as Value,
)
from mmpost.core.stage import (
    Bench as Bench,
    Gold as Gold,
    Reads as Reads,
    Recording as Recording,
    Source as Source,
    Stage as Stage,
    Task as Task,
)
