"""Programs that measure speed and memory, one for each question.

training_step   the pre-training step against the device's matrix rate
input_pipeline  the loader alone
building        building records, beside the tokenizer alone
buckets         fine-tuning on batches of a few lengths, against one length
packing         pre-training on rows of several examples, against a row each
on_gpu          all of pre-training that matters on a GPU, as a table
peers           training and inference, against another implementation
"""
