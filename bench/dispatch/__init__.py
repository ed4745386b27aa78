"""Where the runs of a study are executed: in this process, in several, on machines that Ray joins, or as SLURM jobs.

Nothing here schedules. The run directories are the truth and their locks say who works on what; a worker goes through
the plan and takes the first run that is ready and that nobody has. So several workers, several machines on a shared
folder, two starts of one study and a start after a kill are all the same thing.
"""
