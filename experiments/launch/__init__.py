"""Programs that start others: on a host, a TPU pod, Kubernetes, Slurm.

keep_running  a program again and again on this host, until it is done
tpu_pod       a slice of Cloud TPUs, created again when it is preempted
gke           a JobSet for Google Kubernetes Engine, on TPUs or GPUs
slurm         a batch job that requeues itself, or an array of them
"""
