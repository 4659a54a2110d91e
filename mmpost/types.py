"""The nouns of mmpost in one place. Their definitions are in `mmpost.core`; read those modules first."""

from mmpost.core.models import (
    Decoder as Decoder,
    EmbeddingModel as EmbeddingModel,
    GenerativeModel as GenerativeModel,
    InputPreview as InputPreview,
    Model as Model,
    ReplyDecoder as ReplyDecoder,
)
from mmpost.core.plugins import (
    Context as Context,
    Edit as Edit,
    Engine as Engine,
    FunctionTransform as FunctionTransform,
    Objective as Objective,
    RefillBatch as RefillBatch,
    Reward as Reward,
    Rollout as Rollout,
    Sampling as Sampling,
    Selector as Selector,
    Transform as Transform,
    Update as Update,
)
from mmpost.core.samples import (
    Batch as Batch,
    CoordinateFrame as CoordinateFrame,
    Loss as Loss,
    Origin as Origin,
    Outputs as Outputs,
    Part as Part,
    Reply as Reply,
    Sample as Sample,
    SampleRecord as SampleRecord,
    Split as Split,
    Value as Value,
)
from mmpost.core.stage import (
    Bench as Bench,
    GeneratedDataset as GeneratedDataset,
    Gold as Gold,
    ReadsFrom as ReadsFrom,
    Source as Source,
    Stage as Stage,
    Task as Task,
)
