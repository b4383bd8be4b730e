"""Everything that an nnictl experiment runs."""

from nni_spos.experiment.nni_arguments import tuner_folder
from nni_spos.process.import_path import leave_folder

# NNI appends it to Python's path to find the tuner, which is found by now. Nothing else is to be
# found there, neither by NNI nor by what is imported from here on.
if (_folder := tuner_folder()) is not None:
    leave_folder(_folder)
