"""The public names of `import mmpost as mp`: name -> module. Imported on first use, and torch with them."""

EXPORTS: dict[str, str] = {
    name: module
    for module, names in {
        "mmpost.config.settings": "DataSettings Settings",
        "mmpost.core.plugins": """
            Context Edit FunctionTransform Objective RefillBatch Reward Sampling Selector Transform Update
        """,
        "mmpost.core.models": "EmbeddingModel GenerativeModel Model",
        "mmpost.core.samples": "Batch CoordinateFrame Loss Outputs Part Reply Sample SampleRecord Split",
        "mmpost.core.stage": "Bench GeneratedDataset Gold ReadsFrom Source Stage Task",
        "mmpost.data.media.media": "Media media",
        "mmpost.data.media.modalities": "Modality register_modality",
        "mmpost.data.readers.user_data": "user_data",
        "mmpost.data.sources.base": "Generated Indexed Subset Wrapped",
        "mmpost.edits.freeze": "Freeze",
        "mmpost.edits.head": "AddHead",
        "mmpost.edits.lora": "Lora",
        "mmpost.edits.standardize": "Standardize",
        "mmpost.errors": "ColumnError ConfigError DataError MmpostError PluginError TrainError",
        "mmpost.judges.base": "Judge Verdict",
        "mmpost.judges.chat_judge": "JudgePrompt",
        "mmpost.judges.grade": "Grade",
        "mmpost.judges.settings": "JudgeSettings",
        "mmpost.judges.transform": "JudgeScore judge_reward",
        "mmpost.methods.policy_gradient": "PolicyGradientTask",
        "mmpost.methods.preference": "PreferenceTask",
        "mmpost.metrics.embeddings": """
            CrossModalRetrieval EmbeddingClassifier HeadClassifier NearestNeighbors OutlierScore PcaProjection
        """,
        "mmpost.metrics.summaries": "anomaly_detection class_accuracy neighbor_precision retrieval_recall",
        "mmpost.models.embedding.encoders": "Encoder",
        "mmpost.objectives.classify": "Classify",
        "mmpost.objectives.contrastive": "Contrastive",
        "mmpost.objectives.likelihood": "Likelihood",
        "mmpost.objectives.policy": "PolicyLoss",
        "mmpost.objectives.preference": "Preference",
        "mmpost.transforms.advantage": "GroupAdvantage LeaveOneOut",
        "mmpost.transforms.dynamic_sampling": "DropZeroVariance",
        "mmpost.transforms.generate": "DropReplies EncodeReplies Generate InjectTruth ReplyFromTruth greedy",
        "mmpost.transforms.logprobs": "KlFromStart OldLogprobs ReferenceLogprobs ScoreLogprobs",
        "mmpost.transforms.score": "ParseRate Score SmoothTruth",
    }.items()
    for name in names.split()
}
