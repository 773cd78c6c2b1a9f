"""Every default of a config, once, with a comment a key. Each other config changes what differs.

A value that is a placeholder (None) means "the method's own default"; fields of methods not chosen are ignored.
"""

from collections.abc import Mapping, Sequence

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from robust_saliency import checks


def default() -> ConfigDict:
    config = ConfigDict()
    config.title = ""  # of the report
    config.description = ""  # what this config is for, in a sentence
    config.seed = 0  # of weights, order of batches, and training attacks
    config.mesh = _mesh()
    config.data = _data()
    config.model = _model()
    config.objective = _objective()
    config.schedules = _schedules()
    config.optimizer = _optimizer()
    config.train = _train()
    config.phases = ()  # each made by phase(), in order: training in several parts, see below
    config.init_from = _init_from()
    config.evaluation = _evaluation()
    config.study = _study()
    config.benchmark = _benchmark()
    config.robustness = _robustness()
    config.neurons = _neurons()
    config.roar = _roar()
    return config


def attack(**changes) -> ConfigDict:
    """An attack and its threat model."""
    config = ConfigDict()
    config.name = "pgd"  # pgd, fgsm, fgsm_rs, apgd, 'package.module:name'; in an evaluation more, see evaluated_attack
    config.norm = "linf"  # linf, l2 or l1
    config.epsilon = 4 / 255  # radius in pixels, which lie in [0, 1]
    config.projection = "exact"  # exact, or scale_then_clip as in published L2 recipes
    config.num_steps = 7
    config.step_size = placeholder(float)  # pixels; or else
    config.relative_step_size = placeholder(float)  # times epsilon; default 2.5 / num_steps
    config.schedule = "constant"  # of the step size: constant, linear or cosine
    config.momentum = placeholder(float)  # 1 = MI-FGSM
    config.rule = "steepest"  # pgd: or a rule of optax: adabelief, adam, lion, radam, rmsprop, yogi
    config.num_restarts = 1  # pgd, apgd: starts side by side, the worst counts
    config.relative_step = placeholder(float)  # fgsm_rs: times epsilon; default 1.25
    config.sparsity = 0.01  # l1: share of values that a step changes
    config.start = "uniform"  # uniform, sphere, gaussian (trades and mart as published) or none
    config.start_scale = 0.001  # deviation of the gaussian start
    config.keep_best = False  # the iterate of highest loss instead of the last
    config.unroll = False  # True: on CPU, for a network of jax's own convolutions; ten steps at most
    config.update(changes)
    return config


def evaluated_attack(**changes) -> ConfigDict:
    """An attack of an evaluation, which may also decide itself who is fooled."""
    # autoattack, untargeted, targeted, fab, square, deepfool, carlini_wagner
    config = attack(**changes)
    config.version = placeholder(str)  # autoattack: standard, or fast (without FAB and Square)
    config.steps = placeholder(int)  # autoattack: of APGD and FAB, for each target; default 100
    config.num_queries = placeholder(int)  # autoattack: of Square; default 5000
    config.num_targets = placeholder(int)  # autoattack, targeted, fab: wrong classes aimed at; default 9
    return config


def saliency(name: str, **changes) -> ConfigDict:
    """A saliency method."""
    config = ConfigDict()
    # gradient, input_x_gradient, integrated_gradients, expected_gradients, blur_ig, guided_ig, smoothgrad, original,
    # positive, negative, active, inactive, contrast, grad_cam, grad_cam_plus_plus, guided_backprop, occlusion, rise, or
    # 'package.module:name'
    config.name = name
    config.score = placeholder(str)  # what is explained: logit (the default but of rise), probability, ...
    config.sign = placeholder(str)  # of each entry: abs, squared, positive, negative, signed
    config.channels = placeholder(str)  # how channels become one map: sum_abs, max_abs, l2, sum, max
    config.ties = placeholder(str)  # active, inactive: entries that two classes share are dropped or kept
    config.against = placeholder(str)  # contrast: runner_up, mean, log_sum_exp
    config.layer = placeholder(str)  # grad_cam, grad_cam_plus_plus: '' = the last whose activation is a map
    config.upsampling = placeholder(str)  # grad_cam, grad_cam_plus_plus: bilinear, nearest
    config.window = placeholder(int)  # occlusion: side in pixels
    config.stride = placeholder(int)  # occlusion: pixels between windows
    config.cells = placeholder(int)  # rise: of a mask along a side
    config.visible = placeholder(float)  # rise: share of the cells
    config.centred = placeholder(bool)  # rise: the mean score of an image is taken from each
    config.max_sigma = placeholder(float)  # blur_ig: of the blur at the start, in pixels
    config.spacing = placeholder(str)  # blur_ig: of the blurs: linear, quadratic
    config.fraction = placeholder(float)  # guided_ig: share of entries that moves at a time
    config.max_distance = placeholder(float)  # guided_ig: from the straight line, as a share of the way
    # input_x_gradient, integrated_gradients, expected_gradients, guided_ig, occlusion, rise
    config.baseline = _baseline()
    config.num_steps = placeholder(int)  # integrated_gradients, blur_ig, guided_ig
    # integrated_gradients: gauss_legendre, riemann_left, riemann_middle, riemann_right, trapezoid
    config.rule = placeholder(str)
    config.num_samples = placeholder(int)  # smoothgrad, expected_gradients, rise
    config.sigma = placeholder(float)  # smoothgrad: deviation of the noise
    config.relative_to = placeholder(str)  # smoothgrad: sigma in 'bounds', or of each 'image_range'
    config.statistic = placeholder(str)  # smoothgrad: mean, squared, variance
    config.clip = placeholder(bool)  # smoothgrad: noisy images stay in the box
    config.chunk_size = placeholder(int)  # passes at a time; 0 = as many as max_images allows
    config.max_images = placeholder(int)  # images in memory at a time
    config.unroll = placeholder(bool)  # as of an attack
    config.update(changes)
    return config


def metric(name: str, **changes) -> ConfigDict:
    """A metric."""
    config = ConfigDict()
    config.name = name  # a name of robust_saliency.metrics.METRICS, or 'package.module:name'
    config.sign = placeholder(str)  # what counts of a signed map: abs, positive, negative, raw
    config.mask = placeholder(str)  # lesion, evidence, or a concept of the data: ruler, hair, bubble, ...
    config.within = placeholder(str)  # evidence_given_lesion
    config.tolerance = placeholder(int)  # pointing_game: pixels around the mask
    config.normalised = placeholder(bool)  # entropy; deletion, insertion: by the clean and the fully deleted score
    config.least_change = placeholder(float)  # deletion, insertion, if normalised: of the score by all pixels together
    config.order = placeholder(str)  # deletion, insertion: morf or lerf; road: combined too
    config.points = placeholder(int)  # deletion, insertion, effective_complexity: both ends among them; road: neither
    config.score = placeholder(str)  # probability or logit; of a curve: accuracy, allegiance too
    config.power = placeholder(int)  # smoothness: of the differences, 1 or 2
    config.unit = placeholder(str)  # smoothness: mean (of the map's relevance), or map, as published
    config.window = placeholder(int)  # colour_agreement: side in pixels
    config.baseline = _baseline()  # deletion, insertion, completeness, ...: what a deleted pixel becomes
    config.colour = placeholder(str)  # allegiance_auc: black or white
    config.tolerated = placeholder(float)  # effective_complexity: distance from the score of the whole image
    config.perturbation = placeholder(str)  # infidelity, which is made for signed maps: noise or squares
    config.most_side = placeholder(int)  # infidelity with squares: pixels
    config.scaling = placeholder(str)  # infidelity: none, best, share
    config.fraction = placeholder(float)  # faithfulness_correlation: share of the pixels in a set
    config.patch = placeholder(int)  # monotonicity: pixels of its side
    config.gradient = placeholder(str)  # alignment: logit or margin
    config.cosine = placeholder(bool)  # alignment: over the image's length too
    config.centre = placeholder(float)  # alignment: the pixel value that counts as nothing
    # noise_stability, attack_stability, random_logit: spearman, kendall, ssim, top_k_intersection
    config.similarity = placeholder(str)
    config.sigma = placeholder(float)  # noise_stability, infidelity, road: deviation of the noise, in pixels of [0, 1]
    config.num_samples = placeholder(int)  # noise_stability, infidelity, ...: changed images an example
    config.noise = _noise()  # max_sensitivity, average_sensitivity, relative_input_stability, relative_output_stability
    config.attack = _explanation_attack()  # attack_stability
    config.norm = placeholder(str)  # relative stabilities: l1, l2, linf
    config.least_share = placeholder(float)  # relative stabilities: of the mean, that a pixel is divided by at least
    config.least_change = placeholder(float)  # relative stabilities: of image or logits, that is divided by at least
    config.update(changes)
    return config


def _baseline() -> ConfigDict:
    config = ConfigDict()
    config.kind = placeholder(str)  # black, white, mean, blur, uniform, constant
    config.value = placeholder(float)  # constant
    config.blur_sigma = placeholder(float)  # blur: pixels
    return config


def _noise() -> ConfigDict:
    config = ConfigDict()
    config.kind = placeholder(str)  # gaussian, uniform
    config.scale = placeholder(float)  # deviation or radius, in pixels of [0, 1]
    config.num_samples = placeholder(int)  # noisy images an example
    return config


def _explanation_attack() -> ConfigDict:
    """On the gradient map, the prediction kept."""
    config = ConfigDict()
    config.norm = placeholder(str)  # linf, l2, l1
    config.epsilon = placeholder(float)
    config.num_steps = placeholder(int)  # of APGD
    config.distance = placeholder(str)  # top_k, mass_centre
    config.k = placeholder(int)  # top_k: pixels
    config.surrogate = placeholder(str)  # activation that can be differentiated twice: 'softplus10'; '' = the network's
    return config


def run(label: str, description: str, **overrides) -> ConfigDict:
    """A run of a study: what it is called, what it is, and what it changes in the config."""
    return ConfigDict({"label": label, "description": description, "overrides": overrides})


def claim(
    label: str, sentence: str, *expected: ConfigDict, correlated: Sequence[ConfigDict] = (), source: str = "paper"
) -> ConfigDict:
    """What a study is expected to show: it holds where each of ``expected`` and of ``correlated`` does.

    source: paper, or ours where the paper does not say it.
    """
    settings = {"label": label, "sentence": sentence, "expected": expected, "correlated": tuple(correlated)}
    return ConfigDict({**settings, "source": source})


def expected(metric: str, run: str, direction: str = "higher", **changes) -> ConfigDict:
    """A difference: ``metric`` is higher, or lower, in ``run`` than in another run, or than that of another map."""
    config = ConfigDict()
    config.metric = metric  # a label of evaluation.metrics; without a map accuracy, robust:<attack> or confidence
    config.run = run
    config.direction = direction  # higher or lower
    config.map = ""  # a label of evaluation.maps
    config.than_run = ""  # '' = the same
    config.than_map = ""  # '' = the same; floors: each of the maps that never look at the network
    config.than_metric = ""  # '' = the same
    config.by = 0.0  # the least difference; below 0 how much worse it may be
    config.update(changes)
    return config


def correlation(metric: str, along: str, numbers: Mapping[str, float], direction: str = "higher", **changes):
    """``metric`` rises, or falls, with ``along``, of which ``numbers`` says how much each run has.

    Three runs or more, which should differ in that alone.
    """
    config = ConfigDict()
    config.metric = metric  # as in expected()
    config.runs = tuple(numbers)
    config.numbers = tuple(map(float, numbers.values()))
    config.along = along  # what the numbers are, such as "epsilon"
    config.direction = direction
    config.map = ""
    config.beyond = 0.0  # the least correlation of the means with the numbers; where lower is claimed its opposite
    config.update(changes)
    return config


def start(label: str, description: str, **overrides) -> ConfigDict:
    """A run that others of the study begin from: trained, on other data perhaps, and neither evaluated nor compared."""
    return ConfigDict({"label": label, "description": description, "overrides": overrides, "evaluated": False})


def phase(label: str, init_step: str = "best", **overrides) -> ConfigDict:
    """A part of a run's training: what it changes in objective, optimizer, schedules and train.

    It begins with weights of the phase before it, the best or the last, the first as init_from says, and with a fresh
    optimiser.
    """
    return ConfigDict({"label": label, "init_step": init_step, "overrides": overrides})


def adversarial_run(
    label: str, description: str, epochs: int = 12, learning_rate: float = 3e-3, **attack_changes
) -> ConfigDict:
    """Adversarial training that starts from the study's run 'standard', with epsilon ramped up."""
    return run(
        label,
        f"{description} Started from the standard network.",
        objective={"name": "adversarial", "attack": attack_changes},
        optimizer={"schedule": "cosine", "learning_rate": learning_rate},
        train={"epochs": epochs, "validate_every": 2, "checkpoint_every": 2},
        schedules={"epsilon": {"until": 0.4}},
        init_from={"workdir": "../standard"},
    )


def check_size(size: str) -> None:
    checks.one_of("size", size, ("small", "full"))


def _mesh() -> ConfigDict:
    config = ConfigDict()
    config.num_devices = 0  # devices that share a batch, of all processes together; 0 = all
    config.samples = 1  # of them, so many share one example in an evaluation: points of a map, restarts of an attack
    config.parameters = "replicated"  # or sharded: each device holds a part of the large arrays of the training state
    return config


def _data() -> ConfigDict:
    config = ConfigDict()
    config.name = "planted_lesions"  # planted_lesions, folder, or any data set prepared with TensorFlow Datasets
    config.data_dir = ""  # '' = $TFDS_DATA_DIR, then ~/tensorflow_datasets
    config.image_size = 0  # side in pixels; 0 = as stored
    config.channels = 0  # 1 or 3; 0 = as stored
    config.image_field = "image"  # feature names
    config.label_field = "label"
    config.mask_field = ""  # '' = none; a mask makes localisation metrics possible
    config.group_field = ""  # examples of a group (a lesion, a patient) stay on one side of a split
    config.train_split = "train"
    config.validation_split = ""  # '' = a share of train
    config.validation_fraction = 0.1
    config.test_split = "test"
    config.num_train = 0  # seeded random subset; 0 = all
    config.num_validation = 0
    config.num_test = 0
    config.classes = ()  # names of the classes to keep, as "('nevus','melanoma')"; () = all
    config.class_balanced = False  # every class equally often in training
    config.equal_classes = ()  # splits that keep as many examples of each class, as "('train','test')"
    config.in_memory = "auto"  # yes, no, or auto: streamed when larger than
    config.memory_limit_gb = 4.0
    config.batch_size = 128  # over all devices
    config.seed = 0  # of splits, subsets and rendering: not of training
    config.augment = _augment()
    config.planted = _planted()
    return config


def _augment() -> ConfigDict:
    config = ConfigDict()
    config.flip = False  # left-right
    config.vertical_flip = False
    config.transpose = False
    config.crop_padding = 0  # largest shift in pixels
    config.rotate = False
    config.rotation = 0.0  # largest angle in degrees
    config.colour = False
    config.brightness = 0.0  # largest relative change
    config.contrast = 0.0
    config.saturation = 0.0
    return config


def _planted() -> ConfigDict:
    config = ConfigDict()
    config.size = 32  # side in pixels
    config.min_cue_strength = 0.7  # how clearly a class shows: uniform between the two
    config.max_cue_strength = 1.0
    config.min_radius = 0.3  # of a lesion, in half sides
    config.max_radius = 0.4
    config.min_offset = 0.85  # of its centre: 0 = anywhere, 1 = as near the edge as it can lie
    config.hair_rate = 0.35  # share of images with hair, a ruler, a bubble, dark corners, a tint
    config.ruler_rate = 0.2
    config.bubble_rate = 0.25
    config.vignette_rate = 0.3
    config.colour_cast_rate = 0.3
    config.shortcut = "none"  # ruler, hair or bubble: a distractor that gives a class away
    config.shortcut_class = 1  # melanoma
    config.shortcut_rate = 1.0  # share of that class that carries it
    return config


def _model() -> ConfigDict:
    config = ConfigDict()
    config.name = "small_cnn"  # small_cnn, plain_cnn, resnet18, resnet50, or 'package.module:name'
    config.width = placeholder(int)  # channels of the first block
    config.activation = "relu"  # relu, softplus, gelu, guided; softplus30 = of sharpness 30
    config.mean = (0.5,)  # normalisation inside the model: images come in as [0, 1]
    config.std = (0.25,)
    config.dtype = "float32"  # of the computation; weights, attacks, losses and maps stay float32
    config.smoothing = ""  # layer whose activation a Gaussian filter smooths, kept at evaluation; '' = none
    config.smoothing_sigma = 1.0  # pixels of that activation
    config.pool = placeholder(str)  # small_cnn: max or stride
    config.layers = placeholder(tuple)  # plain_cnn: tokens such as ('conv32k3', 'max2', 'gap')
    config.stem = placeholder(str)  # resnet18, resnet50: cifar or imagenet
    config.zero_init_residual = False  # resnet18, resnet50: every block begins as its shortcut
    return config


def _objective() -> ConfigDict:
    config = ConfigDict()
    # the training regime: standard, adversarial, trades, mart, fgsm_rs, n_fgsm, grad_align, free, consistent, scaat,
    # lesion_mask_control, random_mask_control, saliency_guided, gradient_penalty, or 'package.module:name'
    config.name = "standard"
    # whom training and validation attack with; free, fgsm_rs, n_fgsm and grad_align make steps of their own in its
    # threat model, and only validation attacks with it
    config.attack = attack()
    config.attack_mode = "eval"  # BatchNorm while the adversary is sought: eval or batch
    config.include_clean = False  # adversarial, fgsm_rs, n_fgsm, grad_align: clean images too, with
    config.clean_weight = 0.5  # consistent too
    config.label_smoothing = 0.0  # standard, adversarial, fgsm_rs, n_fgsm, grad_align: share spread over all classes
    config.beta = placeholder(float)  # trades, mart: weight of the KL; default 6
    config.weight = placeholder(float)  # of the penalty; grad_align default 0.2, gradient_penalty, saliency_guided 1
    config.replays = placeholder(int)  # free: steps in a row on a batch; default 8
    config.relative_step = placeholder(float)  # fgsm_rs, n_fgsm, free: the step, times epsilon; default 1.25, 1, 1
    config.relative_noise = placeholder(float)  # n_fgsm: radius of the noise, times epsilon; default 2
    config.through_clean = placeholder(bool)  # grad_align: gradient through the clean input gradient too
    config.gradient_size = placeholder(str)  # gradient_penalty: squared_l2, l2, l1
    config.target = "untargeted"  # consistent: or least_likely, the class of the clean image's smallest logit
    config.consistency_weight = 1.0  # consistent
    config.layers = ()  # consistent: whose activations, as "('conv3','conv4')"; () = the last map
    config.layer_weights = ()  # consistent: one a layer; () = 1 each
    config.feature_distance = "l2"  # consistent: l2 (mean square), l2_sum, normalised, cosine
    config.gradient_into = "both"  # consistent: the pass that is drawn to the other: both, adversarial, clean
    config.fraction = placeholder(float)  # saliency_guided: share of the features that is replaced; default 0.5
    # saliency_guided: gradient, input_x_gradient, integrated_gradients, smoothgrad
    config.map = placeholder(str)
    config.score = placeholder(str)  # saliency_guided: logit, probability, log_probability, loss
    config.importance = placeholder(str)  # saliency_guided: signed, abs, mean_abs
    config.features = placeholder(str)  # saliency_guided: pixel, entry
    config.replacement = placeholder(str)  # saliency_guided: uniform, mean, constant
    config.over = placeholder(str)  # saliency_guided: range and mean of each channel or of the whole image
    config.constant = placeholder(float)  # saliency_guided: the value of the replacement 'constant'
    # scaat, lesion_mask_control, random_mask_control
    config.divergence = "kl"  # between clean and adversarial predictions: kl, js, logit_l2, cross_entropy
    config.divergence_weight = 1.0
    config.raises = "divergence"  # by the adversary: divergence (give attack a random start) or cross_entropy
    config.statistics = "clean"  # BatchNorm's running statistics follow the images clean or adversarial
    # scaat: the adversary changes only what the guide's map calls unimportant
    config.guide = saliency("gradient")
    config.explained = "true"  # class of that map: true or predicted
    config.protect = "rank"  # all but the share quantile of lowest pixels; energy: what holds that share of the map
    config.quantile = 0.5  # random_mask_control too: the share of the pixels, drawn by lot
    config.energy = 0.5
    config.budget = "uniform"  # epsilon of a pixel; saliency: the less, the more important
    config.renewed = False  # the mask: False = of the clean image, True = of each iterate
    config.strength = "fixed"  # epsilon; until_flip: grows over the steps until the prediction changes
    config.attacked = "outside"  # lesion_mask_control: outside or inside the TRUE lesion mask
    config.wrappers = ()  # around the objective, the first innermost, as "('awp','clean_mix')"
    config.awp = ConfigDict({"gamma": 0.01})  # weights attacked within gamma times their norm
    config.awp.trainable = ()  # regular expressions on their names; () = those that train
    config.clean_mix = ConfigDict({"clean_weight": 0.5})  # share of cross-entropy on clean images
    config.adaptive_epsilon = _adaptive_epsilon()
    return config


def _adaptive_epsilon() -> ConfigDict:
    config = ConfigDict()
    config.num_shares = 4  # of the budget at which a cheap attack is tried
    config.factor = 1.0  # times the smallest share that fools
    config.least_share = 0.0  # of the budget, for every example
    config.probe_steps = 1  # of the cheap attack; 1 = FGSM
    return config


def _schedules() -> ConfigDict:
    """By label, values that change in training."""
    return ConfigDict(
        {
            "awp": _ramp("awp.gamma"),
            "epsilon": _ramp("attack.threat.epsilon", "attack.step_size"),
            "quantile": _ramp("quantile"),  # scaat
        }
    )


def _ramp(*fields: str) -> ConfigDict:
    config = ConfigDict()
    config.fields = fields  # of the objective, or of a wrapper by its name
    config.start = 0.0  # factor at the start
    config.stop = 1.0  # factor from 'until' on
    config.after = 0.0  # share of the training steps where it begins to change; alone it is a jump
    config.until = 0.0  # share of the training steps; both 0 = no ramp
    return config


def _optimizer() -> ConfigDict:
    config = ConfigDict()
    config.name = "adamw"  # adamw, adam, sgd
    config.learning_rate = 3e-3  # peak
    config.schedule = "one_cycle"  # one_cycle, cosine, constant
    config.warmup_fraction = 0.3  # one_cycle: share of the steps that rises
    config.weight_decay = 1e-4
    config.momentum = 0.9  # sgd
    config.clip_norm = 1.0  # of the whole gradient; 0 = none
    return config


def _train() -> ConfigDict:
    config = ConfigDict()
    config.epochs = 30
    config.validate_every = 5  # epochs
    config.checkpoint_every = 5  # epochs; of this and validate_every one is a multiple of the other
    config.keep_last = 2  # checkpoints
    config.keep_best = 1
    # accuracy, loss, robust_accuracy, robust_loss; '' = robust_accuracy if there is an attack, else accuracy
    config.best_metric = ""
    config.log_every = 10  # steps
    config.trainable = ()  # regular expressions on names such as params/conv1/kernel; () = all parameters
    config.batch_norm = "train"  # train, or frozen: running statistics stay as they are
    config.patience = 0  # validations without a better best_metric that end training; 0 = never
    config.plateau_patience = 0  # such validations after which the learning rate is multiplied by
    config.plateau_factor = 0.1
    config.average_decay = 0.0  # of a running average of the weights, which is then evaluated; 0 = none
    config.average_batches = 50  # training batches that BatchNorm's statistics of the average are made of
    config.guard_drop = 0.0  # fall of accuracy under PGD on a training batch that ends training; 0 = no guard
    config.guard_steps = 5  # of that PGD
    config.accumulate = 1  # parts that a batch goes through in, one after the other, for the memory of one
    config.remat = False  # True: less memory for more work, see docs/scale.md
    return config


def _init_from() -> ConfigDict:
    config = ConfigDict()
    config.workdir = ""  # run to start from, relative to this run's workdir; '' = random weights
    config.step = "best"  # best, last, or a step number
    config.include = ".*"  # regular expression on parameter paths
    config.exclude = ""
    return config


def _evaluation() -> ConfigDict:
    config = ConfigDict()
    config.split = "test"  # test, validation, train
    config.step = "best"  # checkpoint: best, last, or a step number
    config.num_examples = 0  # 0 = all
    config.batch_size = 128
    config.explained = "true"  # the class that maps explain: true or predicted
    config.num_pictures = 9  # examples in the picture grid
    config.randomisation = _randomisation()
    config.attacks = ConfigDict(
        {
            "linf": evaluated_attack(epsilon=4 / 255, num_steps=20, relative_step_size=1 / 8),
            "l2": evaluated_attack(norm="l2", epsilon=0.5, num_steps=20, relative_step_size=1 / 8),
        }
    )
    config.maps = ConfigDict(
        {
            "gradient": saliency("gradient"),
            "integrated_gradients": saliency(
                "integrated_gradients", num_steps=16, rule="gauss_legendre", baseline={"kind": "mean"}
            ),
            "smoothgrad": saliency("smoothgrad", num_samples=16, sigma=0.15),
        }
    )
    config.metrics = ConfigDict(
        {
            "gini": metric("gini"),
            "entropy": metric("entropy"),
            "total_variation": metric("total_variation"),
            "pointing_game": metric("pointing_game", mask="lesion"),
            "lesion_mass": metric("relevance_mass", mask="lesion"),
            "lesion_rank": metric("rank_accuracy", mask="lesion"),
            "evidence_mass": metric("relevance_mass", mask="evidence"),
            "evidence_given_lesion": metric("evidence_given_lesion", mask="evidence", within="lesion"),
            "deletion": metric("deletion_auc", points=11, score="probability", baseline={"kind": "blur"}),
            "insertion": metric("insertion_auc", points=11, score="probability", baseline={"kind": "blur"}),
        }
    )
    return config


def _randomisation() -> ConfigDict:
    """Do maps depend on what was learnt: each made again as layer after layer gets fresh weights."""
    config = ConfigDict()
    config.orders = ("cascading",)  # from the logits down; 'independent': one layer at a time; () = not at all
    config.similarity = "spearman"  # spearman, kendall, ssim, top_k_intersection
    config.sign = "abs"  # of both maps: abs, positive, negative, raw
    config.num_examples = 64  # the first of those evaluated; at most 256
    return config


def _study() -> ConfigDict:
    config = ConfigDict()
    config.runs = ()  # each made by run(); in the order of work
    config.reference = "standard"  # label of the run that the others are compared with
    config.seeds = 1  # one seed is no claim; three are a start
    config.modes = ()  # then on all runs, as "('roar','neurons')"; claims can be of them: roar, kar, neurons:cs1:conv4
    config.claims = ()  # each made by claim(): what is expected, said before it is measured
    return config


def _robustness() -> ConfigDict:
    config = ConfigDict()
    config.norm = "linf"  # linf, l2 or l1
    config.epsilon = 4 / 255
    config.projection = "exact"
    config.version = "standard"  # of AutoAttack: standard, or fast (without FAB and Square)
    config.steps = 100  # of APGD and FAB
    config.num_queries = 5000  # of Square
    config.num_targets = 9  # wrong classes aimed at
    config.curve_steps = 20  # of APGD at each epsilon of the curve
    config.num_searches = 12  # epsilons tried for each example, at most
    config.num_examples = 256  # of the test split; 0 = all
    config.batch_size = 128
    return config


def _neurons() -> ConfigDict:
    config = ConfigDict()
    config.layers = ()  # whose units, as "('conv3','conv4')"; () = the last layer whose activation is a map
    config.split = "test"  # test, validation, train
    config.num_examples = 0  # of the split; 0 = all
    config.batch_size = 128
    config.quantile = 0.005  # share of all places at which a unit is active
    config.least_iou = 0.04  # a unit detects its best concept where their IoU is above
    config.num_shuffles = 5  # times that the masks are given to other images, to see what chance gives
    config.num_top = 20  # examples that activate a unit most: of which classes they are
    config.hierarchy = ""  # JSON file {child: parent}, classes among them, for consistency; '' = classes stand alone
    config.sigma = 1.0  # of the affinity of two classes, in edges of that tree
    config.num_attacked = 0  # examples of which adversarial images are made, for CS1, CS2, r1, r2; 0 = all
    config.attack = attack()  # makes them
    config.ensemble = ()  # or else against these runs together, as "('../cnn','../vgg')", from the run's own folder:
    config.optimisation = _optimisation()  # how
    config.score = "log_odds"  # what a prediction loses without a unit: log_odds, logit, probability
    config.removed = "zero"  # what a unit becomes that is taken away: zero, mean
    config.num_mistakes = 32  # most confident wrong predictions that are traced, and as many right ones
    config.num_influential = 3  # units named for each
    config.num_shown = 2  # units of each concept (of each class, where there are no masks) drawn on the page
    config.ascent_steps = 40  # of what a unit would like to see; 0 = none
    config.ascent_step_size = 0.5  # pixels, in L2
    return config


def _optimisation() -> ConfigDict:
    config = ConfigDict()
    config.norm = "linf"  # linf, l2 or l1
    config.epsilon = 8 / 255  # radius in pixels that adversarial images stay in
    config.num_adversaries = 10  # of an image
    config.target = "random"  # a wrong class for each; least_likely; none = away from the label
    config.num_steps = 20  # of Adam, each a gradient of every network
    config.learning_rate = 0.005  # pixels
    config.distance = "l2"  # what is kept small: l2, squared_l2, rms
    config.distance_weight = 0.1
    config.combine = "losses"  # what is averaged over the networks: losses, logits, probabilities
    config.start_scale = 0.01  # pixels, deviation of the noise that each begins with
    return config


def _roar() -> ConfigDict:
    config = ConfigDict()
    config.runs = ()  # of a study, the labels of those whose maps are judged, as "('standard','linf')"; () = all
    config.methods = ()  # labels of evaluation.maps, as "('gradient','smoothgrad')"; () = all
    config.fractions = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the pixels
    config.mode = "remove"  # remove the most relevant (ROAR), keep those alone (KAR), or both
    config.sign = "abs"  # what of a map is relevance: abs, positive, negative, raw
    config.baseline = _baseline()  # of removed pixels; None = the mean of the training images by channel
    config.explained = "predicted"  # the class that maps explain; true: they may carry the label into test images
    config.masks_alone = False  # train also on images of nothing but which pixels were removed: what their shape tells
    config.retrainings = 3  # of each, with the seeds 0, 1, ...
    config.objective = "standard"  # of the retraining; all else is as in the run, but from random weights
    config.epochs = 0  # of the retraining; 0 = the run's own
    return config


def _benchmark() -> ConfigDict:
    config = ConfigDict()
    config.parts = ("attacks", "training", "maps")
    config.attack = attack(num_steps=10)  # of the training steps
    config.attacks = ("pgd",)  # pgd, apgd, fgsm, fgsm_rs: with the settings of attack
    config.models = ("small_cnn", "plain_cnn", "resnet18")  # on which attacks are timed; () = all bundled networks
    config.batch_sizes = ()  # of the attacks; () = batch_size
    config.dtypes = ("float32",)  # of the attacks: float32, bfloat16
    config.batch_size = 128
    config.image_size = 32
    config.channels = 3
    config.num_classes = 10
    config.repetitions = 3  # pairs of the attack and as many plain gradients; the median counts
    return config
